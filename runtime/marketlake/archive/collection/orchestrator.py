"""Carry a batch from the discovered files to the end of the last one.

What must survive lies in PostgreSQL: whoever calls these functions may die at any moment, and calling them
again for the same batch, or for a new one over the same files, goes on from there.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar
from uuid import UUID

from opentelemetry.trace import SpanKind

from marketlake.archive import ledger
from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import BatchState, Progress
from marketlake.archive.collection.groups import groups
from marketlake.archive.collection.plan import plan
from marketlake.archive.collection.tasks import GroupTask, requested
from marketlake.domain.archive import ArchiveFile
from marketlake.errors import MarketlakeError
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.bus.connection import EventBusUnavailableError
from marketlake.infrastructure.bus.outbox import Relay
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres
from marketlake.retry import Backoff, retry
from marketlake.settings import EventBus, VenueEndpoint
from marketlake.workers import assignments

log = logging.getLogger(__name__)

CHUNK = 1000
"""Files that are planned in one transaction."""
TIMEOUT_S = 90.0
"""How long an outage of the database, of the event bus or of all workers is waited out."""
_POLL_S = 0.2
_LONGEST_POLL_S = 5.0
_LOOK_AFTER_S = 2.0
_LOST_AFTER_S = 30.0

Outcome = TypeVar("Outcome")


class CollectionStoppedError(MarketlakeError):
    """The batch cannot go on; what is queued is done when the cause is gone."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BatchCancelledError(MarketlakeError):
    """The batch was cancelled."""

    code = "batch-cancelled"


class Orchestrator:
    """Plans a batch, hands its tasks to the event bus and waits until workers have ended them.

    Args:
        postgres: the platform's database.
        relay: publishes the outbox.
        bus: names the topics.
        batch_id: the batch; it has been created.
        endpoint: where the venue is read.
        group_files: files of one task, at most.
        timeout_s: see :data:`TIMEOUT_S`.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        postgres: Postgres,
        relay: Relay,
        bus: EventBus,
        *,
        batch_id: UUID,
        endpoint: VenueEndpoint,
        group_files: int,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._postgres = postgres
        self._relay = relay
        self._topic = bus.tasks_topic
        self._batch_id = batch_id
        self._endpoint = endpoint
        self._group_files = group_files
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._troubled_since: float | None = None

    def dispatch(self, files: Iterable[ArchiveFile], *, see: Callable[[list[ArchiveFile]], None]) -> int:
        """Plan files as they are discovered, and request those that are missing or changed.

        Workers begin before the last file is planned.

        Args:
            files: as discovered.
            see: called with every chunk before it is planned, e.g. to catalogue it.

        Returns:
            How many files are asked for.

        Raises:
            BatchCancelledError: the batch was cancelled meanwhile.
            CollectionStoppedError: the database or the event bus was away for too long.
        """
        asked = 0
        for chunk in _chunks(files, CHUNK):
            see(chunk)
            with telemetry.span("plan and dispatch", kind=SpanKind.PRODUCER, files=len(chunk)):
                asked += self._patiently(partial(self._plan, chunk))
            self._publish()
        return asked

    def wait(self) -> Progress:
        """Wait until every task of the batch has ended; tasks of silent workers are requested again.

        Raises:
            CollectionStoppedError: the database, the event bus or all workers were away for too long.
            BatchCancelledError: the batch was cancelled.
        """
        looked_at = moved_at = time.monotonic()
        former: Progress | None = None
        while True:
            now = time.monotonic()
            seen = self._patiently(self._progress)
            took = time.monotonic() - now
            if seen != former:
                former, moved_at = seen, now
            if seen.state is BatchState.CANCELLED:
                raise BatchCancelledError("the collection was cancelled")
            if not seen.open:
                return seen
            self._publish()
            if now - looked_at >= _LOOK_AFTER_S:
                looked_at = now
                self._patiently(partial(self._look_after, now - moved_at, seen.running))
            # counting a batch of a million files takes a while: look at it less often then
            self._sleep(min(max(_POLL_S, 10 * took), _LONGEST_POLL_S))

    def _plan(self, chunk: list[ArchiveFile]) -> int:
        with self._postgres.transaction() as connection:
            known = ledger.current(connection, chunk[0].venue, [file.key for file in chunk])
            planned = plan(chunk, known)
            cut = groups(planned.wanted, most=self._group_files)
            tasks = [GroupTask.of(group, self._endpoint, self._batch_id) for group in cut]
            asked = batches.add(
                connection,
                self._batch_id,
                tasks,
                topic=self._topic,
                traceparent=telemetry.current_traceparent(),
            )
            if not batches.count(connection, self._batch_id, found=len(chunk), skipped=len(planned.present)):
                raise BatchCancelledError("the collection was cancelled")
        return asked

    def _publish(self) -> None:
        try:
            self._relay.drain()
        except (EventBusUnavailableError, DatabaseUnavailableError) as error:
            self._bear(f"{error} Tasks wait in the outbox and are sent when it is back.")
        else:
            self._troubled_since = None

    def _progress(self) -> Progress:
        with self._postgres.transaction() as connection:
            seen = batches.progress(connection, self._batch_id)
        if seen is None:
            raise CollectionStoppedError(
                "batch-unknown",
                f"the database does not know the batch {self._batch_id}: it was emptied. "
                "Run the collection again.",
            )
        return seen

    def _look_after(self, idle_s: float, running: int) -> None:
        """Request again what a dead worker held or the event bus lost."""
        batch, topic = self._batch_id, self._topic
        event_of = partial(requested, traceparent=telemetry.current_traceparent())
        with self._postgres.transaction() as connection:
            lapsed = assignments.redispatch_lapsed(connection, batch, topic=topic, event_of=event_of)
            if lapsed:
                log.warning("%d groups were in the hands of a worker that went silent: asked again", lapsed)
            if idle_s < _LOST_AFTER_S:
                return
            if assignments.live_workers(connection):
                if not running:
                    assignments.redispatch_queued(
                        connection, batch, topic=topic, event_of=event_of, older_than_s=_LOST_AFTER_S
                    )
            elif idle_s > self._timeout_s:
                raise CollectionStoppedError(
                    "no-workers",
                    f"no collection worker gave a sign of life for {idle_s:.0f} s. "
                    "Look at `marketlake status` and the worker's log; `make up` starts what was stopped. "
                    "The tasks are kept and done when a worker is back.",
                )

    def _patiently(self, action: Callable[[], Outcome]) -> Outcome:
        try:
            return retry(
                action,
                backoff=Backoff(timeout_s=self._timeout_s, first_wait_s=1.0, longest_wait_s=5.0),
                on=DatabaseUnavailableError,
                wait=self._sleep,
            )
        except DatabaseUnavailableError as error:
            raise self._timed_out(str(error)) from error

    def _bear(self, trouble: str) -> None:
        """Tolerate an outage for a while."""
        now = time.monotonic()
        if self._troubled_since is None:
            self._troubled_since = now
            log.warning("%s", trouble)
        if now - self._troubled_since >= self._timeout_s:
            raise self._timed_out(trouble)

    def _timed_out(self, trouble: str) -> CollectionStoppedError:
        return CollectionStoppedError(
            "platform-unreachable", f"after {self._timeout_s:.0f} s of waiting: {trouble}"
        )


def _chunks(files: Iterable[ArchiveFile], size: int) -> Iterator[list[ArchiveFile]]:
    iterator = iter(files)
    while chunk := list(islice(iterator, size)):
        yield chunk
