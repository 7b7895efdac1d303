"""The flow `collect`: discover, plan, dispatch, wait, refine.

Prefect shows each step; what counts is kept in PostgreSQL.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging.handlers import APILogHandler
from prefect.states import Cancelled, Completed, Failed

from marketlake.archive.collection import batches
from marketlake.archive.collection import silver_refresh as refinement
from marketlake.archive.collection.batches import BatchState, Failure, Progress
from marketlake.archive.collection.orchestrator import (
    BatchCancelledError,
    CollectionStoppedError,
    Orchestrator,
)
from marketlake.archive.collection.plan import selected_datasets
from marketlake.archive.collection.tasks import selection_from_json
from marketlake.archive.discovery.catalogue import Catalogue
from marketlake.archive.discovery.discover import discover
from marketlake.domain.archive import ArchiveFile, Selection
from marketlake.domain.venue import Venue, load_venue
from marketlake.errors import MarketlakeError
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.bus.outbox import Relay
from marketlake.infrastructure.bus.producer import Producer
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres, migrate
from marketlake.infrastructure.storage.stores import Lake
from marketlake.infrastructure.telemetry.redaction import Redaction, RedactionFilter, secrets_of
from marketlake.pipeline.batch.silver import refine_many
from marketlake.settings import Settings, VenueEndpoint
from marketlake.workflows.summary import markdown

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """What the steps of one run share."""

    settings: Settings
    postgres: Postgres
    orchestrator: Orchestrator
    batch_id: UUID
    venue: Venue
    endpoint: VenueEndpoint


@flow(
    name="collect",
    description="Discover, plan, collect and refine archive files of a venue.",
    validate_parameters=False,
    persist_result=False,
)
def collect(
    selection: dict[str, Any],
    batch_id: str | None = None,
    traceparent: str | None = None,
    venue_endpoint: dict[str, str] | None = None,
) -> State[Any]:
    """Collect the selected files.

    Args:
        selection: fields of a :class:`~marketlake.domain.archive.Selection` as JSON values; `venue` at least.
        batch_id: UUID under which PostgreSQL keeps the state; a new one if None, e.g. when started in the UI.
        traceparent: W3C trace context to continue.
        venue_endpoint: `endpoint` and `bucket` to read instead of the environment's.

    Returns:
        Completed only if all that was found is in.
    """
    settings = Settings.load()
    telemetry.configure("collect-flow", settings)
    chosen = selection_from_json(selection)
    batch = UUID(batch_id) if batch_id else uuid4()
    with _logs_in_prefect(settings):
        try:
            with telemetry.span("collect", traceparent=traceparent, batch=str(batch)):
                return _collect(settings, chosen, batch, selection, venue_endpoint)
        finally:
            telemetry.flush()  # after the span: one that is still open is not among what is sent


def _collect(
    settings: Settings,
    selection: Selection,
    batch_id: UUID,
    fields: dict[str, Any],
    venue_endpoint: dict[str, str] | None,
) -> State[Any]:
    producer = Producer(settings.event_bus, client_id=f"collect-{batch_id}")
    with Postgres(settings.database, application=batches.application_of(batch_id)) as postgres:
        try:
            migrate(postgres)
            with postgres.transaction() as connection:
                batches.create(connection, batch_id, fields, telemetry.current_traceparent())
            venue = load_venue(selection.venue)
            endpoint = (
                VenueEndpoint.model_validate(venue_endpoint)
                if venue_endpoint
                else settings.venues.get(venue.name, venue.default_endpoint)
            )
            orchestrator = Orchestrator(
                postgres,
                Relay(postgres, producer),
                settings.event_bus,
                batch_id=batch_id,
                endpoint=endpoint,
                group_files=settings.collection.group_files,
            )
            run = Run(settings, postgres, orchestrator, batch_id, venue, endpoint)
            return _steps(run, selected_datasets(venue, selection))
        except BatchCancelledError as error:
            return Cancelled(message=str(error))
        except MarketlakeError as error:
            _note_failure(postgres, batch_id, error.code, str(error))
            return Failed(message=str(error))
        except Exception as error:
            _note_failure(postgres, batch_id, "unexpected", f"{type(error).__name__}: {error}")
            raise
        finally:
            producer.close()


def _steps(run: Run, parts: tuple[Selection, ...]) -> State[Any]:
    for part in parts:
        discover_and_plan(run, part)
    _enter(run, BatchState.COLLECTING)
    wait_for_workers(run)
    _enter(run, BatchState.REFINING)
    for part in parts:
        refine_silver(run, part)
    _enter(run, BatchState.DONE)
    progress, failures = report(run)
    if progress.complete:
        return Completed(message=f"{progress.found} files are in, {progress.verified} of them new")
    return Failed(message=f"{len(failures)} of {progress.found} files failed; the others are in")


def _step_name(verb: str) -> Any:
    def name() -> str:
        from prefect.runtime import task_run

        part: Selection = task_run.parameters["part"]
        return " ".join(filter(None, (verb, part.venue, part.market, part.data_type, part.interval)))

    return name


@task(task_run_name=_step_name("discover"), cache_policy=NO_CACHE, persist_result=False)
def discover_and_plan(run: Run, part: Selection) -> int:
    """List a dataset's files, catalogue them, and dispatch those that are missing or changed."""
    catalogue = Catalogue(Lake.of(run.settings.object_store))

    def record(files: list[ArchiveFile]) -> None:
        catalogue.record(files)

    asked = run.orchestrator.dispatch(discover(run.venue, run.endpoint, part), see=record)
    log.info("%s %s: %d files are handed out", part.market, part.data_type, asked)
    return asked


@task(task_run_name="wait for the workers", cache_policy=NO_CACHE, persist_result=False)
def wait_for_workers(run: Run) -> None:
    """Wait until every file is collected or has failed."""
    ended = run.orchestrator.wait()
    log.info(
        "%d copied, %d verified, %d failed; %d rows", ended.copied, ended.verified, ended.failed, ended.rows
    )


@task(task_run_name=_step_name("refine"), cache_policy=NO_CACHE, persist_result=False)
def refine_silver(run: Run, part: Selection) -> int:
    """Refine the periods that have newly collected files."""
    refine = partial(refine_many, Lake.of(run.settings.object_store))
    rows = refinement.refine_pending(run.postgres, part, refine, wait=threading.Event().wait)
    with run.postgres.transaction() as connection:
        batches.count_refined(connection, run.batch_id, rows)
    return rows


@task(task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report(run: Run) -> tuple[Progress, list[Failure]]:
    """Show the result on the run's page."""
    with run.postgres.transaction() as connection:
        progress = batches.progress(connection, run.batch_id)
        failures = batches.failures(connection, run.batch_id)
    if progress is None:
        raise CollectionStoppedError("batch-unknown", f"the batch {run.batch_id} is gone from the database")
    create_markdown_artifact(
        markdown(run.batch_id, progress, failures),
        key="collection-summary",
        description=f"What the collection {run.batch_id} brought in",
    )
    return progress, failures


def _enter(run: Run, state: BatchState) -> None:
    with run.postgres.transaction() as connection:
        if not batches.enter(connection, run.batch_id, state):
            raise BatchCancelledError("the collection was cancelled")


def _note_failure(postgres: Postgres, batch_id: UUID, code: str, message: str) -> None:
    log.error("the collection ends: %s", message)
    try:
        with postgres.transaction() as connection:
            batches.fail(connection, batch_id, code, message)
    except DatabaseUnavailableError as error:
        log.warning("the end of the batch could not be written down: %s", error)


@contextmanager
def _logs_in_prefect(settings: Settings) -> Iterator[None]:
    """Show the runtime's own records on the run's page, too."""
    handler = APILogHandler()
    handler.addFilter(RedactionFilter(Redaction(secrets_of(settings))))
    logger = logging.getLogger("marketlake")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
