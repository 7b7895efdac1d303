"""Assignments of tasks to workers: claims, results, heartbeats, and tasks whose worker went silent."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from marketlake.infrastructure.bus import outbox
from marketlake.infrastructure.bus.envelope import Event
from marketlake.infrastructure.postgres import Connection

EventOf = Callable[[dict[str, Any]], Event]
"""Returns the event that asks for the task of a stored payload."""

HEARTBEAT_EVERY_S = 2.0
LAPSED_AFTER_S = 10.0
FIRST_DEFERRAL_S = 1.0
LONGEST_DEFERRAL_S = 30.0


class Claim(StrEnum):
    """The answer to a claim of a task."""

    GRANTED = "granted"
    ENDED = "ended"
    """It came to an end before: the message was delivered again."""
    CANCELLED = "cancelled"
    """Its batch was cancelled."""
    UNKNOWN = "unknown"
    """The database does not know it: it was emptied since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a task that succeeded."""

    outcome: str
    """``copied``, ``verified`` (the proven bytes were there already) or ``present``."""
    rows: int = 0
    quarantined: int = 0


def claim(connection: Connection, task_id: UUID, worker: str) -> Claim:
    """Assign a task to a worker. The caller holds the file's lock, so any former worker is gone."""
    row = connection.execute(
        "select t.state, b.state as batch from task t join batch b on b.id = t.batch_id where t.id = %s",
        [task_id],
    ).fetchone()
    if row is None:
        return Claim.UNKNOWN
    if row["state"] not in {"queued", "running"}:
        return Claim.ENDED
    if row["batch"] == "cancelled":
        connection.execute(
            "update task set state = 'cancelled', finished_at = now() where id = %s", [task_id]
        )
        return Claim.CANCELLED
    connection.execute(
        "update task set state = 'running', worker = %s, locked_since = null where id = %s", [worker, task_id]
    )
    return Claim.GRANTED


def locked_for(connection: Connection, task_id: UUID) -> float | None:
    """Note that another session holds the lock of a task's file.

    Returns:
        For how many seconds the task has met the lock; None if the task has ended.
    """
    row = connection.execute(
        "update task set locked_since = coalesce(locked_since, now())"
        " where id = %s and state in ('queued', 'running')"
        " returning extract(epoch from now() - locked_since)::float as seconds",
        [task_id],
    ).fetchone()
    return float(row["seconds"]) if row else None


def defer(connection: Connection, task_id: UUID, event: Event, locked_s: float, *, topic: str) -> None:
    """Ask for a task again later, within the caller's transaction; no attempt is counted.

    The pauses double: each is as long as the task has met the lock so far, from :data:`FIRST_DEFERRAL_S` up to
    :data:`LONGEST_DEFERRAL_S`.
    """
    pause = min(max(locked_s, FIRST_DEFERRAL_S), LONGEST_DEFERRAL_S)
    connection.execute(
        "update task set dispatched_at = now() + make_interval(secs => %s) where id = %s", [pause, task_id]
    )
    outbox.put(connection, topic, [event], after_s=pause)


def attempt_failed(connection: Connection, task_id: UUID, code: str, message: str) -> None:
    """Record an attempt that will be repeated, so that a person who follows can see why it takes long."""
    connection.execute(
        "update task set attempts = attempts + 1, error_code = %s, error = %s where id = %s",
        [code, message, task_id],
    )


def succeed(connection: Connection, task_id: UUID, result: Result) -> None:
    """Record that a task succeeded."""
    connection.execute(
        "update task set state = 'done', outcome = %s, rows = %s, quarantined = %s, error_code = null,"
        " error = null, attempts = attempts + 1, finished_at = now() where id = %s",
        [result.outcome, result.rows, result.quarantined, task_id],
    )


def give_up(connection: Connection, task_id: UUID, worker: str, code: str, message: str) -> bool:
    """End a task that failed for good; False if it has ended, or another worker has it."""
    return bool(
        connection.execute(
            "update task set state = 'failed', error_code = %s, error = %s, attempts = attempts + 1,"
            " finished_at = now() where id = %s and (state = 'queued' or (state = 'running' and worker = %s))",
            [code, message, task_id, worker],
        ).rowcount
    )


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


def live_workers(connection: Connection) -> int:
    """Return how many workers have a recent heartbeat."""
    row = connection.execute(
        "select count(*) as live from worker where heartbeat_at > now() - make_interval(secs => %s)",
        [LAPSED_AFTER_S],
    ).fetchone()
    return int(row["live"]) if row else 0


def redispatch_lapsed(connection: Connection, batch_id: UUID, *, topic: str, event_of: EventOf) -> int:
    """Request running tasks again whose worker went silent; return how many."""
    rows = connection.execute(
        "update task t set state = 'queued', worker = null, dispatched_at = now()"
        " where batch_id = %s and state = 'running' and not exists (select from worker w"
        " where w.id = t.worker and w.heartbeat_at > now() - make_interval(secs => %s)) returning payload",
        [batch_id, LAPSED_AFTER_S],
    ).fetchall()
    return _ask_again(connection, (row["payload"] for row in rows), topic, event_of)


def redispatch_queued(
    connection: Connection, batch_id: UUID, *, topic: str, event_of: EventOf, older_than_s: float
) -> int:
    """Request queued tasks again that no worker claimed for that long; return how many.

    The event bus may have lost them.
    """
    rows = connection.execute(
        "update task set dispatched_at = now() where batch_id = %s and state = 'queued'"
        " and dispatched_at < now() - make_interval(secs => %s) returning payload",
        [batch_id, older_than_s],
    ).fetchall()
    return _ask_again(connection, (row["payload"] for row in rows), topic, event_of)


def _ask_again(
    connection: Connection, payloads: Iterable[dict[str, Any]], topic: str, event_of: EventOf
) -> int:
    return outbox.put(connection, topic, map(event_of, payloads))
