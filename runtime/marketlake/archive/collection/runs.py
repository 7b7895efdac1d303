"""Carry batches on: a worker claims each that nobody carries, and takes it from discovery to silver.

What must survive lies in PostgreSQL. When a worker goes silent, another one claims its batches and goes on from the
state that each is in: what was planned is not planned again, and tasks that are open are waited for.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial

from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import BatchState, Run, Source
from marketlake.archive.collection.orchestrator import Orchestrator, RunEndedError
from marketlake.archive.collection.plan import selected_datasets
from marketlake.archive.collection.stores import Stores
from marketlake.archive.discovery.discover import discover
from marketlake.domain.archive import ArchiveFile, Selection
from marketlake.domain.venue import load_venue
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.postgres import DatabaseUnavailableError
from marketlake.retry import Backoff, RetryStoppedError, retry
from marketlake.workers.dispatcher import code_of, text_of
from marketlake.workers.worker import WorkerProcess

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
"""How often is looked for batches of which no word came."""
_JOINED_WITHIN_S = 1.5
_BACKOFF = Backoff(first_wait_s=0.5, longest_wait_s=5.0)

Catalogued = Callable[[list[ArchiveFile]], object]
"""Writes discovered files into the catalogue."""


class Runs:
    """Carries batches on, each in a thread of its own.

    Args:
        process: the worker.
        stores: landing and the lake.
        catalogue: writes discovered files into the catalogue.
    """

    def __init__(self, process: WorkerProcess, *, stores: Stores, catalogue: Catalogued) -> None:
        self._process = process
        self._postgres = process.postgres
        self._settings = process.settings
        self._stores = stores
        self._catalogue = catalogue
        self._carried: list[threading.Thread] = []

    def run(self, stop: threading.Event) -> None:
        """Claim and carry batches on until `stop` is set; outages are waited out."""
        while not stop.is_set():
            try:
                retry(
                    partial(self._watch, stop), backoff=_BACKOFF, on=DatabaseUnavailableError, wait=stop.wait
                )
            except RetryStoppedError:
                break
        for thread in self._carried:
            thread.join(_JOINED_WITHIN_S)

    def _watch(self, stop: threading.Event) -> None:
        with self._postgres.session() as session:
            session.execute(f"listen {batches.WAKE}")
            while not stop.is_set():
                self._take_up(stop)
                next(session.notifies(timeout=_LOOK_EVERY_S, stop_after=1), None)

    def _take_up(self, stop: threading.Event) -> None:
        self._carried = [thread for thread in self._carried if thread.is_alive()]
        while len(self._carried) < self._settings.collection.batches:
            with self._postgres.transaction() as connection:
                run = batches.claim(connection, self._process.id)
            if run is None:
                return
            thread = threading.Thread(target=self.carry, args=(run, stop), name=f"run-{run.id}", daemon=True)
            thread.start()
            self._carried.append(thread)

    def carry(self, run: Run, stop: threading.Event) -> None:
        """Take a batch to its end, or until `stop` is set."""
        with telemetry.span("collect", traceparent=run.traceparent, batch=str(run.id), lease=run.lease):
            try:
                self._steps(run, stop)
            except RunEndedError as error:
                log.info("batch %s: %s", run.id, error)
            except RetryStoppedError:
                log.info("batch %s is left to another worker: this one ends", run.id)
            except Exception as error:
                log.exception("batch %s ends", run.id)
                self._note_failure(run, error, stop)

    def _steps(self, run: Run, stop: threading.Event) -> None:
        venue = load_venue(run.selection.venue)
        endpoint = run.endpoint or self._settings.venues.get(venue.name, venue.default_endpoint)
        datasets = selected_datasets(venue, run.selection)
        orchestrator = Orchestrator(
            self._postgres,
            self._process.relay,
            self._settings.event_bus,
            run=run,
            endpoint=endpoint,
            group_files=self._settings.collection.group_files,
            wait=stop.wait,
        )
        if run.state is BatchState.PLANNING:
            self._stores.require(self._postgres)
            for dataset in datasets:
                if run.source is Source.LANDING:
                    asked = orchestrator.redo(dataset)
                else:
                    asked = orchestrator.dispatch(discover(venue, endpoint, dataset), see=self._catalogue)
                log.info("%s: %d files are handed out", _named(dataset), asked)
            orchestrator.enter(BatchState.COLLECTING)
        if run.state is not BatchState.REFINING:
            ended = orchestrator.wait()
            log.info(
                "batch %s: %d copied, %d verified, %d failed; %d rows",
                run.id,
                ended.copied,
                ended.verified,
                ended.failed,
                ended.rows,
            )
            orchestrator.enter(BatchState.REFINING)
        for dataset in datasets:
            asked = orchestrator.refine(dataset)
            log.info("%s: %d series are to be refined", _named(dataset), asked)
        orchestrator.wait()
        orchestrator.enter(BatchState.DONE)

    def _note_failure(self, run: Run, error: Exception, stop: threading.Event) -> None:
        def attempt() -> None:
            with self._postgres.transaction() as connection:
                batches.fail(connection, run, code_of(error), text_of(error))

        try:
            retry(attempt, backoff=_BACKOFF, on=DatabaseUnavailableError, wait=stop.wait)
        except RetryStoppedError:
            log.warning("batch %s: its end could not be recorded; another worker takes it on", run.id)


def _named(selection: Selection) -> str:
    parts = (selection.venue, selection.market, selection.data_type, selection.interval)
    return " ".join(filter(None, parts))
