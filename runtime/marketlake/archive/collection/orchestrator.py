"""Carry a batch from the discovered files to the end of the last task.

What must survive lies in PostgreSQL: whoever calls these functions may die at any moment, and calling them
again for the same batch, or for a new one over the same files, goes on from there.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

from opentelemetry.trace import SpanKind

from marketlake.archive import ledger
from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import BatchState, Progress, Run
from marketlake.archive.collection.groups import groups
from marketlake.archive.collection.plan import plan
from marketlake.archive.collection.refiner import cut
from marketlake.archive.collection.tasks import GroupTask, RefinementTask
from marketlake.domain.archive import ArchiveFile, Selection
from marketlake.errors import MarketlakeError
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.bus.connection import EventBusRefusedError, EventBusUnavailableError
from marketlake.infrastructure.bus.outbox import Relay
from marketlake.infrastructure.bus.reading import Reading
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres
from marketlake.retry import Backoff, RetryStoppedError, Wait, retry
from marketlake.settings import EventBus, VenueEndpoint
from marketlake.workers import assignments

log = logging.getLogger(__name__)

CHUNK = 1000
"""Files that are planned in one transaction."""
TIMEOUT_S = 90.0
"""How long an outage of the database or of the event bus is waited out."""
_FIRST_POLL_S = 0.05
_POLL_S = 0.2
"""How often is looked once that the tasks are seen not to be a matter of a second."""
_LONGEST_POLL_S = 5.0
_LOOK_AFTER_S = 2.0
_LOST_AFTER_S = 30.0
"""Of a batch in which nothing happens for that long, tasks may be lost, or wait behind those of another one."""

Outcome = TypeVar("Outcome")


class CollectionStoppedError(MarketlakeError):
    """The batch cannot go on; what is queued is done when the cause is gone."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RunEndedError(MarketlakeError):
    """The batch was cancelled, or another worker carries it on: nothing of it is to be written any more."""

    code = "run-ended"


@dataclass(frozen=True, slots=True)
class _Sent:
    """All that was sent to workers up to a moment."""

    at: float
    """Of the monotonic clock."""
    end: dict[int, int]
    """The topic's end, by partition."""


class Orchestrator:
    """Plans a batch, hands its tasks to the event bus and waits until workers have ended them.

    Args:
        postgres: the platform's database.
        relay: publishes the outbox.
        bus: names the topics.
        run: the batch, and the right to carry it on.
        endpoint: where the venue is read.
        group_files: files of one task, at most.
        timeout_s: see :data:`TIMEOUT_S`.
        wait: waits that many seconds; true: the process ends.
    """

    def __init__(
        self,
        postgres: Postgres,
        relay: Relay,
        bus: EventBus,
        *,
        run: Run,
        endpoint: VenueEndpoint,
        group_files: int,
        timeout_s: float = TIMEOUT_S,
        wait: Wait = time.sleep,
    ) -> None:
        self._postgres = postgres
        self._relay = relay
        self._bus = bus
        self._run = run
        self._endpoint = endpoint
        self._group_files = group_files
        self._timeout_s = timeout_s
        self._wait = wait
        self._troubled_since: float | None = None
        self._sent: _Sent | None = None
        self._planned: set[str] = set()
        self._redone: set[str] = set()

    def dispatch(self, files: Iterable[ArchiveFile], *, see: Callable[[list[ArchiveFile]], object]) -> int:
        """Plan files as they are discovered, and request those that are missing or changed.

        Workers begin before the last file is planned.

        Args:
            files: as discovered.
            see: called with every chunk before it is planned, e.g. to catalogue it.

        Returns:
            How many files are asked for.

        Raises:
            RunEndedError: the batch was cancelled meanwhile, or is another worker's.
            CollectionStoppedError: the database or the event bus was away for too long.
        """
        asked = 0
        if self._run.resumed:
            self._planned = self._patiently(self._known_keys)
        for chunk in _chunks(files, CHUNK):
            see(chunk)
            with telemetry.span("plan and dispatch", kind=SpanKind.PRODUCER, files=len(chunk)):
                asked += self._patiently(partial(self._plan, chunk))
            self._publish()
        return asked

    def redo(self, selection: Selection) -> int:
        """Request that the selected files which were collected are taken over from landing again.

        Files whose rows lie in one data file of bronze are taken over together, so that it is replaced without being
        read: it may be lost.

        Returns:
            How many files are asked for.

        Raises:
            RunEndedError: the batch was cancelled meanwhile, or is another worker's.
            CollectionStoppedError: the database or the event bus was away for too long.
        """
        if self._run.resumed:
            self._planned = self._patiently(self._known_keys)
        asked, after = 0, ""
        while True:
            cut = self._patiently(partial(self._redo_some, selection, after))
            if cut is None:
                return asked
            files, after = cut
            asked += files
            self._publish()

    def enter(self, state: BatchState) -> None:
        """Let the batch enter a state.

        Raises:
            RunEndedError: the batch was cancelled, or is another worker's.
            CollectionStoppedError: the database was away for too long.
        """

        def attempt() -> bool:
            with self._postgres.transaction() as connection:
                return batches.enter(connection, self._run, state)

        if not self._patiently(attempt):
            raise _ended()

    def refine(self, selection: Selection) -> int:
        """Request the refinement of all series of a dataset that have files collected since the last time.

        Args:
            selection: names the venue, a market and a data type, at least.

        Returns:
            How many series are asked for.

        Raises:
            RunEndedError: the batch was cancelled, or is another worker's.
            CollectionStoppedError: the database or the event bus was away for too long.
        """

        def attempt() -> int:
            with self._postgres.transaction() as connection:
                series = ledger.unrefined_series(connection, selection)
                tasks = [RefinementTask.of(some, self._run.id) for some in cut(series)]
                traceparent = telemetry.current_traceparent()
                asked = batches.add(
                    connection, self._run.id, tasks, topic=self._bus.tasks_topic, traceparent=traceparent
                )
                if not batches.is_carried(connection, self._run):
                    raise _ended()
            return asked

        asked = self._patiently(attempt)
        self._publish()
        return asked

    def wait(self) -> Progress:
        """Wait until every task of the batch has ended; tasks of silent workers are requested again.

        Raises:
            CollectionStoppedError: the database or the event bus was away for too long.
            RunEndedError: the batch was cancelled.
            RetryStoppedError: the process ends.
        """
        began = looked_at = moved_at = time.monotonic()
        former: Progress | None = None
        while True:
            now = time.monotonic()
            seen = self._patiently(self._progress)
            took = time.monotonic() - now
            if seen != former:
                former, moved_at = seen, now
            if seen.state is BatchState.CANCELLED:
                raise _ended()
            if not seen.open_tasks:
                return seen
            self._publish()
            if now - looked_at >= _LOOK_AFTER_S:
                looked_at = now
                self._patiently(partial(self._look_after, now - moved_at, seen.running_tasks))
            early = _FIRST_POLL_S if now - began < 1 else _POLL_S
            # counting a batch of a million files takes a while: look at it less often then
            if self._wait(min(max(early, 10 * took), _LONGEST_POLL_S)):
                raise RetryStoppedError("this worker ends: another one carries the batch on")

    def _plan(self, chunk: list[ArchiveFile]) -> int:
        new = [file for file in chunk if file.key not in self._planned]
        with self._postgres.transaction() as connection:
            known = ledger.current(connection, chunk[0].venue, [file.key for file in new])
            planned = plan(new, known)
            cut = groups(planned.wanted, most=self._group_files)
            tasks = [GroupTask.of(group, self._endpoint, self._run.id) for group in cut]
            asked = batches.add(
                connection,
                self._run.id,
                tasks,
                topic=self._bus.tasks_topic,
                traceparent=telemetry.current_traceparent(),
            )
            if not batches.count(connection, self._run, found=len(chunk), skipped=len(planned.present)):
                raise _ended()
        return asked

    def _redo_some(self, selection: Selection, after: str) -> tuple[int, str] | None:
        """How many of the next files behind a key were asked for, and the last key; None if there are none."""
        with self._postgres.transaction() as connection:
            entries = ledger.selected(connection, selection, after=after, most=CHUNK)
            if not entries:
                return None
            numbers = {entry.data_file_id for entry in entries if entry.data_file_id is not None}
            beside = ledger.in_data_files(connection, sorted(numbers))
            lost = [entry.file for entry in entries if entry.data_file_id is None]
            together = [tuple(entry.file for entry in group) for group in beside.values()]
            cut = [
                [file for file in group if file.key not in self._redone]
                for group in (*groups(lost, most=self._group_files), *together)
            ]
            wanted = [[file for file in group if file.key not in self._planned] for group in cut]
            tasks = [
                GroupTask.of(group, self._endpoint, self._run.id, from_landing=True)
                for group in wanted
                if group
            ]
            traceparent = telemetry.current_traceparent()
            asked = batches.add(
                connection, self._run.id, tasks, topic=self._bus.tasks_topic, traceparent=traceparent
            )
            if not batches.count(connection, self._run, found=sum(map(len, cut)), skipped=0):
                raise _ended()
        self._redone.update(file.key for group in cut for file in group)
        return asked, entries[-1].key

    def _known_keys(self) -> set[str]:
        with self._postgres.transaction() as connection:
            return batches.keys(connection, self._run.id)

    def _publish(self) -> None:
        try:
            self._relay.drain()
        except (EventBusUnavailableError, DatabaseUnavailableError) as error:
            self._bear(f"{error} Tasks wait in the outbox and are sent when it is back.")
        else:
            self._troubled_since = None

    def _progress(self) -> Progress:
        with self._postgres.transaction() as connection:
            seen = batches.progress(connection, self._run.id)
        if seen is None:
            raise CollectionStoppedError(
                "batch-unknown",
                f"the database does not know the batch {self._run.id}: it was emptied. "
                "Run the collection again.",
            )
        return seen

    def _look_after(self, idle_s: float, running: int) -> None:
        """Request again what a dead worker held or the event bus lost."""
        topic, traceparent = self._bus.tasks_topic, telemetry.current_traceparent()
        with self._postgres.transaction() as connection:
            lapsed = assignments.redispatch_lapsed(
                connection, self._run.id, topic=topic, traceparent=traceparent
            )
        if lapsed:
            log.warning("%d tasks were in the hands of a worker that went silent: asked again", lapsed)
        if idle_s < _LOST_AFTER_S or running:
            self._sent = None
        elif (sent := self._read_past()) is not None:
            with self._postgres.transaction() as connection:
                lost = assignments.redispatch_queued(
                    connection,
                    self._run.id,
                    topic=topic,
                    traceparent=traceparent,
                    older_than_s=time.monotonic() - sent.at + _LOST_AFTER_S,
                )
            log.warning("%d tasks were lost by the event bus: asked again", lost)

    def _read_past(self) -> _Sent | None:
        """What was sent when nothing had happened for long, once workers have read past it; None before that.

        A batch may wait behind another one for hours. What is not read yet is not sent once more.
        """
        reading = Reading(
            self._bus,
            topic=self._bus.tasks_topic,
            group=self._bus.workers_group,
            client_id=f"batch-{self._run.id}",
        )
        try:
            if self._sent is None:
                self._sent = _Sent(time.monotonic(), reading.end())
            if not reading.is_past(self._sent.end):
                return None
        except (EventBusUnavailableError, EventBusRefusedError) as error:
            log.warning("%s", error)
            return None
        sent, self._sent = self._sent, None
        return sent

    def _patiently(self, action: Callable[[], Outcome]) -> Outcome:
        try:
            return retry(
                action,
                backoff=Backoff(timeout_s=self._timeout_s, first_wait_s=1.0, longest_wait_s=5.0),
                on=DatabaseUnavailableError,
                wait=self._wait,
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


def _ended() -> RunEndedError:
    return RunEndedError("the collection was cancelled, or another worker carries it on")


def _chunks(files: Iterable[ArchiveFile], size: int) -> Iterator[list[ArchiveFile]]:
    iterator = iter(files)
    while chunk := list(islice(iterator, size)):
        yield chunk
