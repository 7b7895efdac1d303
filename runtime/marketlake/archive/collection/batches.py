"""A batch: what one run of `collect` found, and how far it has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from marketlake.archive.collection.tasks import FileTask
from marketlake.infrastructure.bus import outbox
from marketlake.infrastructure.postgres import Connection


class BatchState(StrEnum):
    """Where a batch stands; the last three are its ends."""

    PLANNING = "planning"
    COLLECTING = "collecting"
    REFINING = "refining"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the batch."""
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
        """Files that are still to come to an end."""
        return self.queued + self.running

    @property
    def complete(self) -> bool:
        """Whether all that was found is in."""
        return self.state is BatchState.DONE and not (self.failed or self.cancelled or self.open)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A file that was given up."""

    key: str
    code: str
    message: str
    attempts: int


def application_of(batch_id: UUID) -> str:
    """The name under which the run of a batch connects to PostgreSQL, which ends a killed client's session at once."""
    return f"collect {batch_id}"


def create(
    connection: Connection, batch_id: UUID, selection: dict[str, Any], traceparent: str | None
) -> None:
    """Begin a batch; a batch that is there already begins again with planning, unless it was cancelled."""
    connection.execute(
        "insert into batch (id, selection, state, traceparent) values (%s, %s, 'planning', %s)"
        " on conflict (id) do update set state = 'planning', found = 0, skipped = 0, error = null,"
        " error_code = null, finished_at = null where batch.state <> 'cancelled'",
        [batch_id, Jsonb(selection), traceparent],
    )


def add(
    connection: Connection, batch_id: UUID, tasks: Sequence[FileTask], *, topic: str, traceparent: str | None
) -> int:
    """Write tasks and the events that ask for them, within the caller's transaction; what is there is kept.

    Returns:
        How many were new.
    """
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into task (id, batch_id, venue, key, payload, size) values (%s, %s, %s, %s, %s, %s)"
            " on conflict do nothing returning id",
            [
                (
                    task.id,
                    batch_id,
                    task.file.venue,
                    task.file.key,
                    Jsonb(task.model_dump(mode="json")),
                    task.file.size,
                )
                for task in tasks
            ],
            returning=True,
        )
        new: set[UUID] = set()
        while tasks:
            new.update(row["id"] for row in cursor.fetchall())
            if not cursor.nextset():
                break
    return outbox.put(connection, topic, [task.requested(traceparent) for task in tasks if task.id in new])


def count(connection: Connection, batch_id: UUID, *, found: int, skipped: int) -> bool:
    """Add to what was found and to what was in already; False if the batch was cancelled meanwhile."""
    return bool(
        connection.execute(
            "update batch set found = found + %s, skipped = skipped + %s where id = %s and state <> 'cancelled'",
            [found, skipped, batch_id],
        ).rowcount
    )


def enter(connection: Connection, batch_id: UUID, state: BatchState) -> bool:
    """Go on to a state; False if the batch was cancelled meanwhile and stays so."""
    return bool(
        connection.execute(
            "update batch set state = %s, finished_at = case when %s then now() end"
            " where id = %s and state <> 'cancelled'",
            [state.value, state.ended, batch_id],
        ).rowcount
    )


def count_refined(connection: Connection, batch_id: UUID, rows: int) -> None:
    """Add to the rows of silver that were rewritten."""
    connection.execute("update batch set refined_rows = refined_rows + %s where id = %s", [rows, batch_id])


def fail(connection: Connection, batch_id: UUID, code: str, message: str) -> None:
    """End a batch that cannot go on as a whole. Files whose tasks are queued may still come in."""
    connection.execute(
        "update batch set state = 'failed', error_code = %s, error = %s, finished_at = now()"
        " where id = %s and state <> 'cancelled'",
        [code, message, batch_id],
    )


def cancel(connection: Connection, batch_id: UUID) -> bool:
    """End a batch that nobody wants any more: workers finish the files in their hands and drop the rest.

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
    """How far a batch has come; None if it has not begun."""
    row = connection.execute(
        "select b.state, b.found, b.refined_rows, b.error_code, b.error, b.finished_at,"
        " b.skipped + count(t.id) filter (where t.outcome = 'present') as skipped,"
        " count(t.id) filter (where t.state = 'queued') as queued,"
        " count(t.id) filter (where t.state = 'running') as running,"
        " count(t.id) filter (where t.outcome = 'copied') as copied,"
        " count(t.id) filter (where t.outcome in ('copied', 'verified')) as verified,"
        " count(t.id) filter (where t.state = 'failed') as failed,"
        " count(t.id) filter (where t.state = 'cancelled') as cancelled,"
        " coalesce(sum(t.rows), 0)::bigint as rows,"
        " coalesce(sum(t.quarantined), 0)::bigint as quarantined,"
        " coalesce(sum(t.size) filter (where t.outcome = 'copied'), 0)::bigint as size,"
        " exists (select from pg_stat_activity where application_name = %s) as attended"
        " from batch b left join task t on t.batch_id = b.id where b.id = %s group by b.id",
        [application_of(batch_id), batch_id],
    ).fetchone()
    return None if row is None else Progress(**(row | {"state": BatchState(row["state"])}))


def failures(connection: Connection, batch_id: UUID) -> list[Failure]:
    """The files of a batch that were given up, in the order of their keys."""
    rows = connection.execute(
        "select key, error_code as code, error as message, attempts from task"
        " where batch_id = %s and state = 'failed' order by key",
        [batch_id],
    ).fetchall()
    return [Failure(**row) for row in rows]
