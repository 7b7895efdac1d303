"""A batch in PostgreSQL: what one collection found, and its progress.

Any process may request one. A worker claims it and carries it on under a lease (:class:`Run`); when the worker goes
silent another one takes over, and what the former still tries to write under its lease is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from marketlake.archive.collection.tasks import (
    COLLECTION,
    REFINEMENT,
    GroupTask,
    RefinementTask,
    selection_from_json,
    selection_to_json,
)
from marketlake.domain.archive import Selection
from marketlake.infrastructure.bus import outbox
from marketlake.infrastructure.postgres import Connection
from marketlake.settings import VenueEndpoint
from marketlake.workers.assignments import LAPSED_AFTER_S
from marketlake.workers.requests import requested

WAKE = "marketlake_batch"
"""Channel on which PostgreSQL tells that a batch has entered a state."""


class Source(StrEnum):
    """Where the files of a batch come from."""

    VENUE = "venue"
    LANDING = "landing"
    """Files that were collected before are taken over again, for a lake that lost them."""


class BatchState(StrEnum):
    """The states of a batch; the last three are final."""

    REQUESTED = "requested"
    PLANNING = "planning"
    COLLECTING = "collecting"
    REFINING = "refining"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self in {BatchState.DONE, BatchState.FAILED, BatchState.CANCELLED}


@dataclass(frozen=True, slots=True)
class Run:
    """The right to carry a batch on; it is lost when another worker claims the batch."""

    id: UUID
    """The batch's."""
    lease: int
    """Grows with each claim."""
    state: BatchState
    """In which it was claimed."""
    selection: Selection
    endpoint: VenueEndpoint | None
    """Where the venue is read; None: where the environment says."""
    source: Source
    traceparent: str | None
    """W3C trace context of who requested it."""

    @property
    def resumed(self) -> bool:
        """Whether it was claimed before."""
        return self.lease > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Counts of files, rows and bytes of a batch at one moment."""

    state: BatchState
    found: int
    """Files that the venue shows."""
    skipped: int
    """In already: nothing was done."""
    queued: int
    running: int
    copied: int
    """Streamed from the venue into landing, checksum proven."""
    verified: int
    """Proven without a new copy being needed, or copied."""
    failed: int
    cancelled: int
    rows: int
    """Rows written to bronze."""
    quarantined: int
    size: int
    """Bytes of the files that were copied."""
    refined_rows: int
    """Rows of the silver days that were rewritten."""
    unrefined: int
    """Series that could not be refined."""
    open_tasks: int
    """Tasks of any kind that have not ended."""
    running_tasks: int
    """Those of them that a worker has begun."""
    error_code: str | None
    error: str | None
    finished_at: datetime | None
    attended: bool
    """Whether the worker that carries the batch on gives signs of life."""

    @property
    def open(self) -> int:
        """Files that have not ended."""
        return self.queued + self.running

    @property
    def complete(self) -> bool:
        """Whether all files that were found are collected, and refined."""
        left = self.failed or self.cancelled or self.open or self.unrefined
        return self.state is BatchState.DONE and not left


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A file that could not be collected, or a series that could not be refined."""

    key: str
    """The file's, or the series' name, e.g. ``spot klines BTCUSDT 1m``."""
    code: str
    message: str
    attempts: int


def request(
    connection: Connection,
    batch_id: UUID,
    selection: Selection,
    endpoint: VenueEndpoint | None,
    *,
    traceparent: str | None,
    source: Source = Source.VENUE,
) -> None:
    """Request a batch; one that exists stays as it is."""
    connection.execute(
        "insert into batch (id, selection, endpoint, source, state, traceparent)"
        " values (%s, %s, %s, %s, 'requested', %s) on conflict do nothing",
        [
            batch_id,
            Jsonb(selection_to_json(selection)),
            Jsonb(endpoint.model_dump(mode="json")) if endpoint else None,
            source,
            traceparent,
        ],
    )
    _tell(connection, batch_id)


def claim(connection: Connection, worker: str) -> Run | None:
    """Assign the oldest batch that no live worker carries on; None if there is no such batch."""
    row = connection.execute(
        "update batch set carrier = %s, lease = lease + 1,"
        " found = case when state in ('requested', 'planning') then 0 else found end,"
        " skipped = case when state in ('requested', 'planning') then 0 else skipped end,"
        " state = case when state = 'requested' then 'planning' else state end where id = ("
        " select id from batch b where state not in ('done', 'failed', 'cancelled') and not exists ("
        " select from worker w where w.id = b.carrier and w.heartbeat_at > now() - make_interval(secs => %s))"
        " order by created_at limit 1 for update skip locked)"
        " returning id, lease, state, selection, endpoint, source, traceparent",
        [worker, LAPSED_AFTER_S],
    ).fetchone()
    if row is None:
        return None
    _tell(connection, row["id"])
    return Run(
        row["id"],
        row["lease"],
        BatchState(row["state"]),
        selection_from_json(row["selection"]),
        VenueEndpoint.model_validate(row["endpoint"]) if row["endpoint"] else None,
        Source(row["source"]),
        row["traceparent"],
    )


def add(
    connection: Connection,
    batch_id: UUID,
    tasks: Sequence[GroupTask] | Sequence[RefinementTask],
    *,
    topic: str,
    traceparent: str | None,
) -> int:
    """Write tasks and the events that request them, within the caller's transaction; tasks that exist are kept.

    Returns:
        How many files, or series, the new ones have.
    """
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into task (id, batch_id, kind, payload, parts, size) values (%s, %s, %s, %s, %s, %s)"
            " on conflict do nothing returning id",
            [
                (task.id, batch_id, task.kind, Jsonb(task.model_dump(mode="json")), task.parts, task.size)
                for task in tasks
            ],
            returning=True,
        )
        new: set[UUID] = set()
        while tasks:
            new.update(row["id"] for row in cursor.fetchall())
            if not cursor.nextset():
                break
    added = [task for task in tasks if task.id in new]
    outbox.put(connection, topic, [requested(task.id, batch_id, traceparent=traceparent) for task in added])
    return sum(task.parts for task in added)


def open_batches(connection: Connection) -> int:
    """Return how many batches have not ended."""
    row = connection.execute(
        "select count(*) as n from batch where state not in ('done', 'failed', 'cancelled')"
    ).fetchone()
    return int(row["n"]) if row else 0


def prune(connection: Connection, *, kept: timedelta) -> int:
    """Delete batches that ended longer ago, with their tasks; return how many."""
    return connection.execute(
        "delete from batch where state in ('done', 'failed', 'cancelled') and finished_at < now() - %s",
        [kept],
    ).rowcount


def keys(connection: Connection, batch_id: UUID) -> set[str]:
    """Return the keys of all files for which the batch has tasks."""
    rows = connection.execute(
        "select file ->> 'key' as key from task, jsonb_array_elements(payload -> 'files') file"
        " where batch_id = %s and kind = %s",
        [batch_id, COLLECTION],
    ).fetchall()
    return {row["key"] for row in rows}


def count(connection: Connection, run: Run, *, found: int, skipped: int) -> bool:
    """Add to the counts of found and skipped files; return False if the run is not this one's any more."""
    return bool(
        connection.execute(
            "update batch set found = found + %s, skipped = skipped + %s"
            " where id = %s and lease = %s and state <> 'cancelled'",
            [found, skipped, run.id, run.lease],
        ).rowcount
    )


def is_carried(connection: Connection, run: Run) -> bool:
    """Return whether the run is still this one's; it stays so until the end of the caller's transaction."""
    row = connection.execute(
        "select from batch where id = %s and lease = %s and state <> 'cancelled' for update",
        [run.id, run.lease],
    ).fetchone()
    return row is not None


def enter(connection: Connection, run: Run, state: BatchState) -> bool:
    """Enter a state; return False if the run is not this one's any more, and the batch stays as it is."""
    entered = connection.execute(
        "update batch set state = %s, finished_at = case when %s then now() end"
        " where id = %s and lease = %s and state <> 'cancelled'",
        [state.value, state.ended, run.id, run.lease],
    ).rowcount
    _tell(connection, run.id)
    return bool(entered)


def fail(connection: Connection, run: Run, code: str, message: str) -> None:
    """End a batch that cannot go on as a whole. Files whose tasks are queued may still come in."""
    connection.execute(
        "update batch set state = 'failed', error_code = %s, error = %s, finished_at = now()"
        " where id = %s and lease = %s and state <> 'cancelled'",
        [code, message, run.id, run.lease],
    )
    _tell(connection, run.id)


def cancel(connection: Connection, batch_id: UUID) -> bool:
    """Cancel a batch: workers finish the files that they work on and drop the rest.

    Returns:
        False if it had ended already, or never began.
    """
    ended = connection.execute(
        "update batch set state = 'cancelled', finished_at = now()"
        " where id = %s and state not in ('done', 'failed', 'cancelled')",
        [batch_id],
    ).rowcount
    connection.execute(
        "update task set state = 'cancelled', finished_at = now() where batch_id = %s and state = 'queued'"
        " and exists (select from batch where id = %s and state = 'cancelled')",
        [batch_id, batch_id],
    )
    _tell(connection, batch_id)
    return bool(ended)


def progress(connection: Connection, batch_id: UUID) -> Progress | None:
    """Return the progress of a batch; None if it does not exist."""
    row = connection.execute(_PROGRESS, {"batch": batch_id, "lapsed": LAPSED_AFTER_S}).fetchone()
    return None if row is None else Progress(**(row | {"state": BatchState(row["state"])}))


def _sum(column: str, kind: str, *states: str) -> str:
    """SQL: the sum of a column over the tasks of a kind in these states."""
    within = ", ".join(f"'{state}'" for state in states)
    return f"coalesce(sum({column}) filter (where t.kind = '{kind}' and t.state in ({within})), 0)::bigint"


_PROGRESS = (
    "select b.state, b.found, b.error_code, b.error, b.finished_at,"  # noqa: S608 - names of our own
    f" b.skipped + {_sum('t.present', COLLECTION, 'done')} as skipped,"
    f" {_sum('t.parts', COLLECTION, 'queued')} as queued,"
    f" {_sum('t.parts', COLLECTION, 'running', 'staged')} as running,"
    f" {_sum('t.copied', COLLECTION, 'done')} as copied,"
    f" {_sum('t.copied + t.verified', COLLECTION, 'done')} as verified,"
    f" {_sum('t.failed', COLLECTION, 'done', 'failed')} as failed,"
    f" {_sum('t.parts', COLLECTION, 'cancelled')} as cancelled,"
    f" {_sum('t.rows', COLLECTION, 'done')} as rows,"
    f" {_sum('t.quarantined', COLLECTION, 'done')} as quarantined,"
    f" {_sum('t.copied_size', COLLECTION, 'done')} as size,"
    f" {_sum('t.rows', REFINEMENT, 'done')} as refined_rows,"
    f" {_sum('t.failed', REFINEMENT, 'done', 'failed')} as unrefined,"
    " count(*) filter (where t.state in ('queued', 'running', 'staged')) as open_tasks,"
    " count(*) filter (where t.state in ('running', 'staged')) as running_tasks,"
    " exists (select from worker w where w.id = b.carrier"
    " and w.heartbeat_at > now() - make_interval(secs => %(lapsed)s)) as attended"
    " from batch b left join task t on t.batch_id = b.id where b.id = %(batch)s group by b.id"
)


def failures(connection: Connection, batch_id: UUID) -> list[Failure]:
    """Return the files and series of a batch that failed, in the order of their keys."""
    rows = connection.execute(
        "select f.key, f.code, f.message, f.attempts from part_failure f join task t on t.id = f.task_id"
        " where t.batch_id = %s and t.state in ('done', 'failed') order by f.key",
        [batch_id],
    ).fetchall()
    return [Failure(**row) for row in rows]


@dataclass(frozen=True, slots=True)
class Unshown:
    """A batch of which the workflow engine does not show the newest state."""

    id: UUID
    state: BatchState
    selection: dict[str, Any]
    error: str | None
    flow_run: str | None
    """Id of the flow run that shows it; None if there is none yet."""


def unshown(connection: Connection, *, most: int) -> list[Unshown]:
    """Return batches that have entered a state since it was shown, the oldest first."""
    rows = connection.execute(
        "select id, state, selection, error, flow_run from batch where shown_state is distinct from state"
        " order by created_at limit %s",
        [most],
    ).fetchall()
    return [
        Unshown(row["id"], BatchState(row["state"]), row["selection"], row["error"], row["flow_run"])
        for row in rows
    ]


def shown(connection: Connection, batch: Unshown, flow_run: str) -> None:
    """Record that the workflow engine shows a batch in that state."""
    connection.execute(
        "update batch set shown_state = %s, flow_run = %s where id = %s", [batch.state, flow_run, batch.id]
    )


def open_flow_runs(connection: Connection) -> dict[str, UUID]:
    """Return the flow runs that show batches which have not ended, with these."""
    rows = connection.execute(
        "select flow_run, id from batch where state not in ('done', 'failed', 'cancelled') and flow_run is not null"
    ).fetchall()
    return {row["flow_run"]: row["id"] for row in rows}


def flow_run(connection: Connection, batch_id: UUID) -> str | None:
    """Return the id of the flow run that shows a batch; None if there is none yet."""
    row = connection.execute("select flow_run from batch where id = %s", [batch_id]).fetchone()
    return row["flow_run"] if row else None


def _tell(connection: Connection, batch_id: UUID) -> None:
    connection.execute("select pg_notify(%s, %s)", [WAKE, str(batch_id)])
