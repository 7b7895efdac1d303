"""A batch in PostgreSQL: what one run of `collect` found, and its progress."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from marketlake.archive.collection.tasks import GroupTask, requested
from marketlake.infrastructure.bus import outbox
from marketlake.infrastructure.postgres import Connection


class BatchState(StrEnum):
    """The states of a batch; the last three are final."""

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
    error_code: str | None
    error: str | None
    finished_at: datetime | None
    attended: bool
    """Whether the run that carries the batch on is connected to the database; see :func:`application_of`."""

    @property
    def open(self) -> int:
        """Files that have not ended."""
        return self.queued + self.running

    @property
    def complete(self) -> bool:
        """Whether all files that were found are collected."""
        return self.state is BatchState.DONE and not (self.failed or self.cancelled or self.open)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A file that failed."""

    key: str
    code: str
    message: str
    attempts: int


def application_of(batch_id: UUID) -> str:
    """Return the name of a run's PostgreSQL sessions, which end at once when the run is killed."""
    return f"collect {batch_id}"


def create(
    connection: Connection, batch_id: UUID, selection: dict[str, Any], traceparent: str | None
) -> None:
    """Create a batch; one that exists begins again with planning, unless it was cancelled."""
    connection.execute(
        "insert into batch (id, selection, state, traceparent) values (%s, %s, 'planning', %s)"
        " on conflict (id) do update set state = 'planning', found = 0, skipped = 0, error = null,"
        " error_code = null, finished_at = null where batch.state <> 'cancelled'",
        [batch_id, Jsonb(selection), traceparent],
    )


def add(
    connection: Connection, batch_id: UUID, tasks: Sequence[GroupTask], *, topic: str, traceparent: str | None
) -> int:
    """Write tasks and the events that request them, within the caller's transaction; tasks that exist are kept.

    Returns:
        How many files the new ones have.
    """
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into task (id, batch_id, payload, files, size) values (%s, %s, %s, %s, %s)"
            " on conflict do nothing returning id",
            [
                (task.id, batch_id, Jsonb(task.model_dump(mode="json")), len(task.files), task.size)
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
    return sum(len(task.files) for task in added)


def count(connection: Connection, batch_id: UUID, *, found: int, skipped: int) -> bool:
    """Add to the counts of found and skipped files; return False if the batch was cancelled meanwhile."""
    return bool(
        connection.execute(
            "update batch set found = found + %s, skipped = skipped + %s where id = %s and state <> 'cancelled'",
            [found, skipped, batch_id],
        ).rowcount
    )


def enter(connection: Connection, batch_id: UUID, state: BatchState) -> bool:
    """Enter a state; return False if the batch was cancelled meanwhile and stays so."""
    return bool(
        connection.execute(
            "update batch set state = %s, finished_at = case when %s then now() end"
            " where id = %s and state <> 'cancelled'",
            [state.value, state.ended, batch_id],
        ).rowcount
    )


def count_refined(connection: Connection, batch_id: UUID, rows: int) -> None:
    """Add to the count of rewritten silver rows."""
    connection.execute("update batch set refined_rows = refined_rows + %s where id = %s", [rows, batch_id])


def fail(connection: Connection, batch_id: UUID, code: str, message: str) -> None:
    """End a batch that cannot go on as a whole. Files whose tasks are queued may still come in."""
    connection.execute(
        "update batch set state = 'failed', error_code = %s, error = %s, finished_at = now()"
        " where id = %s and state <> 'cancelled'",
        [code, message, batch_id],
    )


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
    return bool(ended)


def progress(connection: Connection, batch_id: UUID) -> Progress | None:
    """Return the progress of a batch; None if it does not exist."""
    row = connection.execute(
        "select b.state, b.found, b.refined_rows, b.error_code, b.error, b.finished_at,"
        " b.skipped + coalesce(sum(t.present) filter (where t.state = 'done'), 0)::bigint as skipped,"
        " coalesce(sum(t.files) filter (where t.state = 'queued'), 0)::bigint as queued,"
        " coalesce(sum(t.files) filter (where t.state in ('running', 'staged')), 0)::bigint as running,"
        " coalesce(sum(t.copied) filter (where t.state = 'done'), 0)::bigint as copied,"
        " coalesce(sum(t.copied + t.verified) filter (where t.state = 'done'), 0)::bigint as verified,"
        " coalesce(sum(t.failed) filter (where t.state in ('done', 'failed')), 0)::bigint as failed,"
        " coalesce(sum(t.files) filter (where t.state = 'cancelled'), 0)::bigint as cancelled,"
        " coalesce(sum(t.rows) filter (where t.state = 'done'), 0)::bigint as rows,"
        " coalesce(sum(t.quarantined) filter (where t.state = 'done'), 0)::bigint as quarantined,"
        " coalesce(sum(t.copied_size) filter (where t.state = 'done'), 0)::bigint as size,"
        " exists (select from pg_stat_activity where application_name = %s) as attended"
        " from batch b left join task t on t.batch_id = b.id where b.id = %s group by b.id",
        [application_of(batch_id), batch_id],
    ).fetchone()
    return None if row is None else Progress(**(row | {"state": BatchState(row["state"])}))


def failures(connection: Connection, batch_id: UUID) -> list[Failure]:
    """Return the files of a batch that failed, in the order of their keys."""
    rows = connection.execute(
        "select f.key, f.code, f.message, f.attempts from file_failure f join task t on t.id = f.task_id"
        " where t.batch_id = %s and t.state in ('done', 'failed') order by f.key",
        [batch_id],
    ).fetchall()
    return [Failure(**row) for row in rows]
