"""Collect one file: lock it, look it up in the ledger, copy it, ingest it, and record the result."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from marketlake.archive import ledger
from marketlake.archive.collection.tasks import FILE_REQUESTED, FileTask
from marketlake.archive.ledger import LedgerEntry, Receipt
from marketlake.domain.archive import ArchiveFile
from marketlake.errors import MarketlakeError
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.bus import outbox
from marketlake.infrastructure.bus.consumer import RetryLaterError
from marketlake.infrastructure.bus.envelope import EnvelopeError, Event, Message
from marketlake.infrastructure.postgres import Connection, DatabaseUnavailableError, Postgres
from marketlake.infrastructure.postgres.locks import LockHeldError
from marketlake.infrastructure.telemetry import metrics
from marketlake.pipeline.ingest.bronze import Ingested
from marketlake.retry import Backoff, FailedAttempt, RetryStoppedError, retry
from marketlake.settings import ObjectStore, Settings, VenueEndpoint
from marketlake.sync.copy import CopiedObject
from marketlake.sync.errors import VenueError
from marketlake.sync.limits import HostLimiter
from marketlake.workers import assignments
from marketlake.workers.assignments import Claim, Result

log = logging.getLogger(__name__)

UNEXPECTED = "unexpected"
"""Code of an unforeseen error."""
_NOT_THE_FILE = (RetryLaterError, psycopg.Error)
"""Errors of the platform: the consumer tries the task again."""
LOCKED_AT_MOST_S = 3600.0
"""How long a task waits for a file that another session holds before it counts as failed."""
_LONGEST_MESSAGE = 4000
"""Characters of an error that are kept: an event has to fit through the event bus."""


class FileLockedError(MarketlakeError):
    """Another session held the file's lock for too long."""

    code = "file-locked"


class Copy(Protocol):
    """Streams a file into landing (:func:`marketlake.sync.copy.copy_file`)."""

    def __call__(
        self, file: ArchiveFile, endpoint: VenueEndpoint, store: ObjectStore, /
    ) -> Coroutine[Any, Any, CopiedObject]:
        """Return the object in landing, copied now or before."""
        ...


class Ingest(Protocol):
    """Writes a copied file's rows to bronze (:func:`marketlake.pipeline.ingest.bronze.ingest`)."""

    def __call__(self, file: ArchiveFile, copied: CopiedObject, store: ObjectStore, /) -> Ingested:
        """Return what the bronze table holds of the file now."""
        ...


class Collector:
    """Works on tasks; several threads may share one.

    Args:
        settings: the environment.
        postgres: its database.
        worker: id of this worker, as it shows in the task.
        stop: set when the process is to end: waiting ends then, and the task is handed back.
        copy: streams a file into landing (:func:`marketlake.sync.copy.copy_file`).
        ingest: writes its rows to bronze (:func:`marketlake.pipeline.ingest.bronze.ingest`).
    """

    def __init__(
        self,
        settings: Settings,
        postgres: Postgres,
        *,
        worker: str,
        stop: threading.Event,
        copy: Copy,
        ingest: Ingest,
    ) -> None:
        self._settings = settings
        self._postgres = postgres
        self._worker = worker
        self._stop = stop
        self._copy = copy
        self._ingest = ingest
        self._limiter = HostLimiter(settings.collection.requests_per_second)

    def work(self, event: Event) -> None:
        """Do what the event asks for, whatever comes out of it for the file; later, if the file is locked elsewhere.

        Raises:
            RetryLaterError: something outside prevents it, or the process ends; the task is as it was.
            EnvelopeError: the event asks for nothing that is known here.
        """
        task = _task(event)
        file = task.file
        try:
            with telemetry.span(
                "collect file",
                kind=SpanKind.CONSUMER,
                traceparent=event.traceparent,
                venue=file.venue,
                key=file.key,
                batch=str(task.batch_id),
            ):
                self._work_or_defer(task, event.traceparent)
        except DatabaseUnavailableError as error:
            raise RetryLaterError(str(error)) from error

    def _work_or_defer(self, task: FileTask, traceparent: str | None) -> None:
        try:
            with ledger.file_lock(self._postgres, task.file.venue, task.file.key) as session:
                self._work_locked(session, task)
        except LockHeldError:
            self._defer(task, traceparent)

    def _defer(self, task: FileTask, traceparent: str | None) -> None:
        """Put a task back whose file is locked elsewhere, and so take another one meanwhile."""
        with self._postgres.transaction() as connection:
            locked_s = assignments.locked_for(connection, task.id)
            if locked_s is None:
                return
            if locked_s > LOCKED_AT_MOST_S:
                error = FileLockedError(
                    f"{task.file.key}: another session has held its lock for {locked_s:.0f} s. Look at the sessions "
                    "that hold advisory locks in PostgreSQL; collect again once it is free."
                )
                self._give_up(connection, task, error, 0)
                return
            topic = self._settings.event_bus.tasks_topic
            assignments.defer(connection, task.id, task.requested(traceparent), locked_s, topic=topic)
        log.info("%s is locked by another session: it is tried again later", task.file.key)

    def abandon(self, message: Message, error: Exception) -> None:
        """End the task that a message asks for, because the message goes to the dead letters.

        Whatever went wrong, and however unusable the message is: a batch waits for each of its tasks. A message
        that names no task leaves none behind.

        Raises:
            RetryLaterError: the database is not available.
        """
        task_id = _task_id(message)
        if task_id is None:
            return
        code, _ = _diagnosis(error)
        try:
            self._end(task_id, code, _text(error))
        except RetryLaterError:
            raise
        except Exception:
            log.exception("the error of task %s could not be recorded; the task ends without it", task_id)
            self._end(task_id, code, f"{type(error).__name__}; the worker's log has its message")

    def _end(self, task_id: UUID, code: str, message: str) -> None:
        try:
            with self._postgres.transaction() as connection:
                assignments.give_up(connection, task_id, self._worker, code, message)
        except DatabaseUnavailableError as problem:
            raise RetryLaterError(str(problem)) from problem

    def _work_locked(self, session: Connection, task: FileTask) -> None:
        claim = assignments.claim(session, task.id, self._worker)
        if claim is not Claim.GRANTED:
            log.info("%s: nothing to do, the task is %s", task.file.key, claim.value)
            return
        began = time.monotonic()
        outcome = self._attempts(session, task)
        labels = _labels(task.file)
        metrics.files().add(1, {**labels, "outcome": outcome})
        metrics.duration().record(time.monotonic() - began, {**labels, "outcome": outcome})

    def _attempts(self, session: Connection, task: FileTask) -> str:
        """Try until the file is collected or has failed; return the outcome."""
        file = task.file
        former = ledger.current(session, file.venue, [file.key]).get(file.key)
        if former is not None and former.is_of(file):
            assignments.succeed(session, task.id, Result(outcome="present"))
            return "present"
        failures: list[FailedAttempt] = []

        def tell(failed: FailedAttempt) -> None:
            failures.append(failed)
            self._note_failure(session, task, failed)

        try:
            return retry(
                partial(self._bring_in, session, task, former),
                backoff=Backoff(attempts=self._settings.collection.attempts, longest_asked_s=math.inf),
                on=_may_pass,
                wait=self._stop.wait,
                tell=tell,
            )
        except RetryStoppedError as error:
            raise RetryLaterError(f"{file.key} is handed back: this worker ends") from error
        except _NOT_THE_FILE:
            raise
        except Exception as error:  # noqa: BLE001 - one bad file must not stop the others
            self._give_up(session, task, error, len(failures) + 1)
            return "failed"

    def _bring_in(self, session: Connection, task: FileTask, former: LedgerEntry | None) -> str:
        file = task.file
        self._take_turn(task.endpoint)
        copied = asyncio.run(self._copy(file, task.endpoint, self._settings.object_store))
        if not copied.already_there:
            metrics.read_bytes().add(file.size, _labels(file))
        if former is not None and former.sha256 == copied.sha256:
            with session.transaction():
                ledger.touch(session, file, former)
                assignments.succeed(session, task.id, Result(outcome="verified"))
            return "verified"
        ingested = self._ingest(file, copied, self._settings.object_store)
        outcome = "verified" if copied.already_there else "copied"
        self._write_down(session, task, copied, ingested, outcome)
        labels = _labels(file)
        metrics.rows().add(ingested.rows, {**labels, "layer": "bronze"})
        metrics.rows().add(ingested.quarantined, {**labels, "layer": "quarantine"})
        log.info("%s is in: %d rows, %d quarantined", file.key, ingested.rows, ingested.quarantined)
        return outcome

    def _write_down(
        self, session: Connection, task: FileTask, copied: CopiedObject, ingested: Ingested, outcome: str
    ) -> None:
        """Write the ledger entry, the end of the task and the event in one transaction; fail if the lock was lost."""
        receipt = Receipt(
            sha256=copied.sha256,
            header=ingested.header,
            rows=ingested.rows,
            quarantined=ingested.quarantined,
            first_day=ingested.first_day,
            last_day=ingested.last_day,
            landing_key=copied.key,
            landing_version_id=copied.version_id,
            bronze_version=ingested.version,
        )
        result = Result(outcome=outcome, rows=ingested.rows, quarantined=ingested.quarantined)
        with telemetry.span("write ledger", key=task.file.key), session.transaction():
            entry = ledger.record(session, task.file, receipt, batch_id=task.batch_id)
            assignments.succeed(session, task.id, result)
            event = task.collected(entry, outcome, telemetry.current_traceparent())
            outbox.put(session, self._settings.event_bus.events_topic, [event])

    def _give_up(self, session: Connection, task: FileTask, error: Exception, attempts: int) -> None:
        code, _ = _diagnosis(error)
        message = _text(error)
        if code == UNEXPECTED:
            log.error("%s failed after %d attempts", task.file.key, attempts, exc_info=error)
        else:
            log.error("%s failed after %d attempts: %s: %s", task.file.key, attempts, code, message)
        metrics.failures().add(1, {"venue": task.file.venue, "code": code})
        event = task.failed(code, message, telemetry.current_traceparent())
        bus = self._settings.event_bus
        with session.transaction():
            if assignments.give_up(session, task.id, self._worker, code, message):
                outbox.put(session, bus.events_topic, [event])
                outbox.put(session, bus.dead_letters_topic, [event])

    def _note_failure(self, session: Connection, task: FileTask, failed: FailedAttempt) -> None:
        error = failed.error
        code, _ = _diagnosis(error)
        if isinstance(error, VenueError) and error.retry_after:
            self._limiter.hold_off(_host(task.endpoint), error.retry_after)
        message = "%s: %s: %s; attempt %d in %.1f s"
        log.warning(message, task.file.key, code, error, failed.number + 1, failed.wait_s)
        metrics.retries().add(1, {"venue": task.file.venue, "code": code})
        assignments.attempt_failed(session, task.id, code, _text(error))

    def _take_turn(self, endpoint: VenueEndpoint) -> None:
        if self._stop.wait(self._limiter.reserve(_host(endpoint))):
            raise RetryLaterError("handed back: this worker ends")


def _task(event: Event) -> FileTask:
    if event.type != FILE_REQUESTED:
        raise EnvelopeError(f"event {event.id} is a {event.type}; workers take {FILE_REQUESTED} only")
    try:
        return FileTask.model_validate(event.data)
    except ValidationError as error:
        raise EnvelopeError(f"event {event.id} holds no usable task: {error}") from error


def _task_id(message: Message) -> UUID | None:
    """The id of the task that a message asks for, if at least that can be read."""
    try:
        return UUID(str(Event.from_message(message).data["id"]))
    except (EnvelopeError, KeyError, ValueError):
        return None


def _text(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_LONGEST_MESSAGE]


def _diagnosis(error: Exception) -> tuple[str, bool]:
    """Return the code, and whether another attempt may help; an unforeseen error may be an outage."""
    return (error.code, error.transient) if isinstance(error, MarketlakeError) else (UNEXPECTED, True)


def _may_pass(error: Exception) -> bool:
    _, transient = _diagnosis(error)
    return transient and not isinstance(error, _NOT_THE_FILE)


def _host(endpoint: VenueEndpoint) -> str:
    return urlsplit(endpoint.endpoint).netloc


def _labels(file: ArchiveFile) -> dict[str, str]:
    return {"venue": file.venue, "market": file.market, "data_type": file.data_type}
