"""Assignments of tasks to workers: claims under a lease, results, heartbeats, and tasks whose worker went silent."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from marketlake.errors import MarketlakeError
from marketlake.infrastructure.bus import outbox
from marketlake.infrastructure.postgres import Connection
from marketlake.workers.requests import requested

HEARTBEAT_EVERY_S = 2.0
LAPSED_AFTER_S = 10.0


class LeaseLostError(MarketlakeError):
    """Another worker has the task now: what this one did does not count."""

    code = "lease-lost"


class Claim(StrEnum):
    """The answer to a claim of a task."""

    GRANTED = "granted"
    HELD = "held"
    """Another worker has it, and is alive."""
    ENDED = "ended"
    """It came to an end before: the message was delivered again."""
    CANCELLED = "cancelled"
    """Its batch was cancelled."""
    UNKNOWN = "unknown"
    """The database does not know it: it was emptied since."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to end a task; it is lost when another worker claims the task."""

    task_id: UUID
    number: int
    """Grows with each claim."""
    kind: str
    """What the task is, e.g. ``collection``."""
    payload: dict[str, Any]
    """What the task consists of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a task."""

    present: int = 0
    """Files that are in already."""
    copied: int = 0
    verified: int = 0
    """Proven without being copied now."""
    failures: tuple["PartFailure", ...] = ()
    rows: int = 0
    quarantined: int = 0
    copied_size: int = 0
    """Bytes."""


@dataclass(frozen=True, slots=True)
class PartFailure:
    """A part of a task that failed: a file that could not be collected, a series that could not be refined."""

    key: str
    code: str
    message: str
    attempts: int


def claim(connection: Connection, task_id: UUID, worker: str) -> tuple[Claim, Lease | None]:
    """Assign a task to a worker, unless another one has it and is alive."""
    row = connection.execute(
        "select t.state, t.kind, t.payload, b.state as batch, t.state = 'running' and t.worker <> %s and exists ("
        " select from worker w where w.id = t.worker and w.heartbeat_at > now() - make_interval(secs => %s)) as held"
        " from task t join batch b on b.id = t.batch_id where t.id = %s for update of t",
        [worker, LAPSED_AFTER_S, task_id],
    ).fetchone()
    if row is None:
        return Claim.UNKNOWN, None
    if row["state"] not in {"queued", "running"}:
        return Claim.ENDED, None
    if row["batch"] == "cancelled":
        connection.execute(
            "update task set state = 'cancelled', finished_at = now() where id = %s", [task_id]
        )
        return Claim.CANCELLED, None
    if row["held"]:
        return Claim.HELD, None
    claimed = connection.execute(
        "update task set state = 'running', worker = %s, lease = lease + 1 where id = %s returning lease",
        [worker, task_id],
    ).fetchone()
    number = int(claimed["lease"]) if claimed else 0
    return Claim.GRANTED, Lease(task_id, number, row["kind"], row["payload"])


def attempt_failed(connection: Connection, lease: Lease, code: str, message: str) -> None:
    """Record an attempt that will be repeated, so that a person who follows can see why it takes long."""
    connection.execute(
        "update task set attempts = attempts + 1, error_code = %s, error = %s where id = %s and lease = %s",
        [code, message, lease.task_id, lease.number],
    )


def end(connection: Connection, lease: Lease, result: Result, *, staged: bool) -> None:
    """Record a task's result, within the caller's transaction.

    Args:
        connection: to the database.
        lease: the caller's.
        result: what became of the files.
        staged: rows of it are staged; :func:`committed` ends the task.

    Raises:
        LeaseLostError: another worker has the task; nothing is recorded.
    """
    state = "staged" if staged else "done"
    ended = connection.execute(
        "update task set state = %s, present = %s, copied = %s, verified = %s, failed = %s, rows = %s,"
        " quarantined = %s, copied_size = %s, error_code = null, error = null, attempts = attempts + 1,"
        " finished_at = case when %s then null else now() end"
        " where id = %s and lease = %s and state = 'running'",
        [
            state,
            result.present,
            result.copied,
            result.verified,
            len(result.failures),
            result.rows,
            result.quarantined,
            result.copied_size,
            staged,
            lease.task_id,
            lease.number,
        ],
    ).rowcount
    if not ended:
        raise LeaseLostError(f"the task {lease.task_id} was given to another worker")
    connection.execute("delete from part_failure where task_id = %s", [lease.task_id])
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into part_failure (task_id, key, code, message, attempts) values (%s, %s, %s, %s, %s)",
            [
                (lease.task_id, failure.key, failure.code, failure.message, failure.attempts)
                for failure in result.failures
            ],
        )


def committed(connection: Connection, task_ids: Iterable[UUID]) -> None:
    """End tasks whose rows are visible now."""
    connection.execute(
        "update task set state = 'done', finished_at = now() where id = any(%s) and state = 'staged'",
        [list(task_ids)],
    )


def requeue(
    connection: Connection, task_id: UUID, batch_id: UUID, *, topic: str, traceparent: str | None
) -> None:
    """Request a task again whose staged rows were refused, within the caller's transaction."""
    again = connection.execute(
        "update task set state = 'queued', worker = null, dispatched_at = now() where id = %s and state = 'staged'",
        [task_id],
    ).rowcount
    if again:
        outbox.put(connection, topic, [requested(task_id, batch_id, traceparent=traceparent)])


def give_up(connection: Connection, task_id: UUID, code: str, message: str) -> bool:
    """End a task none of whose parts can be done; False if it has ended."""
    row = connection.execute(
        "update task set state = 'failed', error_code = %s, error = %s, attempts = attempts + 1, failed = parts,"
        " finished_at = now() where id = %s and state in ('queued', 'running') returning payload, attempts",
        [code, message, task_id],
    ).fetchone()
    if row is None:
        return False
    connection.execute(
        "insert into part_failure (task_id, key, code, message, attempts)"
        " select id, part ->> 'key', %s, %s, attempts from task,"
        " jsonb_array_elements(coalesce(payload -> 'files', payload -> 'series')) part"
        " where id = %s on conflict do nothing",
        [code, message, task_id],
    )
    return True


def beat(connection: Connection, worker: str, *, host: str, pid: int, concurrency: int) -> None:
    """Record the heartbeat of a worker."""
    connection.execute(
        "insert into worker (id, host, pid, concurrency) values (%s, %s, %s, %s)"
        " on conflict (id) do update set heartbeat_at = now()",
        [worker, host, pid, concurrency],
    )


def leave(connection: Connection, worker: str) -> None:
    """Remove a worker, and those that were silent for a day."""
    connection.execute(
        "delete from worker where id = %s or heartbeat_at < now() - interval '1 day'", [worker]
    )


def redispatch_lapsed(connection: Connection, batch_id: UUID, *, topic: str, traceparent: str | None) -> int:
    """Request running tasks again whose worker went silent; return how many."""
    rows = connection.execute(
        "update task t set state = 'queued', worker = null, dispatched_at = now()"
        " where batch_id = %s and state = 'running' and not exists (select from worker w"
        " where w.id = t.worker and w.heartbeat_at > now() - make_interval(secs => %s)) returning id",
        [batch_id, LAPSED_AFTER_S],
    ).fetchall()
    return _request(connection, batch_id, [row["id"] for row in rows], topic, traceparent)


def redispatch_queued(
    connection: Connection, batch_id: UUID, *, topic: str, traceparent: str | None, older_than_s: float
) -> int:
    """Request queued tasks again that no worker claimed for that long; return how many.

    The event bus may have lost them.
    """
    rows = connection.execute(
        "update task set dispatched_at = now() where batch_id = %s and state = 'queued'"
        " and dispatched_at < now() - make_interval(secs => %s) returning id",
        [batch_id, older_than_s],
    ).fetchall()
    return _request(connection, batch_id, [row["id"] for row in rows], topic, traceparent)


def _request(
    connection: Connection, batch_id: UUID, task_ids: Iterable[UUID], topic: str, traceparent: str | None
) -> int:
    events = [requested(task_id, batch_id, traceparent=traceparent) for task_id in task_ids]
    return outbox.put(connection, topic, events)
