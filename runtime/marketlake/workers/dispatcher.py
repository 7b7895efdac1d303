"""What a worker does with a message: claim the task, and hand it to what works on tasks of its kind."""

import logging
import threading
from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

import psycopg
from opentelemetry.trace import SpanKind

from marketlake.errors import MarketlakeError
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.bus.consumer import RetryLaterError
from marketlake.infrastructure.bus.envelope import EnvelopeError, Event, Message
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres
from marketlake.retry import RetryStoppedError
from marketlake.workers import assignments
from marketlake.workers.assignments import Lease, LeaseLostError
from marketlake.workers.requests import task_of

log = logging.getLogger(__name__)

UNEXPECTED = "unexpected"
"""Code of an unforeseen error."""
_LONGEST_MESSAGE = 4000
"""Characters of an error that are kept: an event has to fit through the event bus."""


class TaskKind(Protocol):
    """Works on tasks of one kind; several threads share one."""

    def work(self, lease: Lease) -> None:
        """Do the task, and end it under the lease (:func:`marketlake.workers.assignments.end`).

        Raises:
            LeaseLostError: another worker has it.
            RetryStoppedError: the process ends; the task is as it was.
            DatabaseUnavailableError: the database is away; likewise.
        """
        ...


class UnknownKindError(MarketlakeError):
    """A task of a kind that this release does not know."""

    code = "unknown-task"


class Dispatcher:
    """Works on messages; several threads share one.

    Args:
        postgres: where tasks are.
        worker: id of this worker, as it shows in the task.
        kinds: what works on tasks, by the name of their kind.
    """

    def __init__(self, postgres: Postgres, *, worker: str, kinds: Mapping[str, TaskKind]) -> None:
        self._postgres = postgres
        self._worker = worker
        self._kinds = kinds
        self._in_hand: set[UUID] = set()
        self._lock = threading.Lock()

    def work(self, event: Event) -> None:
        """Do what the event asks for.

        Raises:
            RetryLaterError: something outside prevents it, or the process ends; the task is as it was.
            EnvelopeError: the event asks for nothing that is known here.
        """
        task_id = task_of(event)
        with self._lock:
            if task_id in self._in_hand:
                return  # the message was delivered again to this very process
            self._in_hand.add(task_id)
        try:
            self._work(task_id, event.traceparent)
        except LeaseLostError as error:
            log.warning("%s", error)
        except RetryStoppedError as error:
            raise RetryLaterError(f"the task {task_id} is handed back: this worker ends") from error
        except (DatabaseUnavailableError, psycopg.Error) as error:
            raise RetryLaterError(str(error)) from error
        finally:
            with self._lock:
                self._in_hand.discard(task_id)

    def abandon(self, message: Message, error: Exception) -> None:
        """End the task that a message asks for, because the message goes to the dead letters.

        Whatever went wrong, and however unusable the message is: a batch waits for each of its tasks. A message
        that names no task leaves none behind.

        Raises:
            RetryLaterError: the database is not available.
        """
        try:
            task_id = task_of(Event.from_message(message))
        except EnvelopeError:
            return
        code = code_of(error)
        try:
            self._end(task_id, code, text_of(error))
        except RetryLaterError:
            raise
        except Exception:
            log.exception("the error of task %s could not be recorded; the task ends without it", task_id)
            self._end(task_id, code, f"{type(error).__name__}; the worker's log has its message")

    def _end(self, task_id: UUID, code: str, message: str) -> None:
        try:
            with self._postgres.transaction() as connection:
                assignments.give_up(connection, task_id, code, message)
        except DatabaseUnavailableError as problem:
            raise RetryLaterError(str(problem)) from problem

    def _work(self, task_id: UUID, traceparent: str | None) -> None:
        with self._postgres.transaction() as connection:
            claim, lease = assignments.claim(connection, task_id, self._worker)
        if lease is None:
            log.info("the task %s: nothing to do, it is %s", task_id, claim.value)
            return
        kind = self._kinds.get(lease.kind)
        if kind is None:
            raise UnknownKindError(
                f"the task {task_id} is a {lease.kind!r}, which this release does not know"
            )
        with telemetry.span(lease.kind, kind=SpanKind.CONSUMER, traceparent=traceparent, task=str(task_id)):
            kind.work(lease)


def code_of(error: Exception) -> str:
    """Return the code under which an error is kept."""
    return error.code if isinstance(error, MarketlakeError) else UNEXPECTED


def text_of(error: Exception) -> str:
    """Return an error's message, as it is kept."""
    return (str(error) or type(error).__name__)[:_LONGEST_MESSAGE]
