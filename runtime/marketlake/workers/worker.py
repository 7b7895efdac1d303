"""The worker process: a member of the consumer group, with a heartbeat and an outbox relay beside it."""

import ctypes
import logging
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol
from uuid import uuid4

from marketlake.infrastructure.bus.consumer import Consumer, Delivery
from marketlake.infrastructure.bus.dead_letters import DeadLetters
from marketlake.infrastructure.bus.envelope import Event, Message
from marketlake.infrastructure.bus.outbox import Relay
from marketlake.infrastructure.bus.producer import Producer
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres, migrate
from marketlake.retry import Backoff, RetryStoppedError, retry
from marketlake.settings import Settings
from marketlake.workers import assignments
from marketlake.workers.liveness import Liveness

log = logging.getLogger(__name__)

TASKS_AT_ONCE = 2
"""One is parsed while the other one is copied."""
GRACE_S = 10.0
"""How long tasks in hand may take to end after SIGTERM; less than the service's stop grace of 15 s."""
_M_ARENA_MAX = -8
_BACKOFF = Backoff(longest_wait_s=5.0)


class TaskHandler(Protocol):
    """Works on tasks; several threads share one."""

    def work(self, event: Event) -> None:
        """Do what the event asks for.

        Raises:
            RetryLaterError: something outside prevents it, or the process ends; the task is as it was.
        """
        ...

    def abandon(self, message: Message, error: Exception) -> None:
        """End the task of a message that is to become a dead letter."""
        ...


class HandlerFactory(Protocol):
    """Makes the handler of one worker process."""

    def __call__(
        self, settings: Settings, postgres: Postgres, *, worker: str, stop: threading.Event
    ) -> TaskHandler:
        """Return a handler that uses this database and gives up waiting when `stop` is set."""
        ...


CompanionFactory = Callable[[Postgres], Callable[[threading.Event], None]]
"""Returns what runs on the worker's database until the event is set."""


def run(
    settings: Settings, handler: HandlerFactory, *, beside: CompanionFactory, stop: threading.Event
) -> int:
    """Work on tasks until `stop` is set.

    Args:
        settings: the environment.
        handler: makes what works on the tasks.
        beside: makes what runs in a thread of its own as long as the worker does.
        stop: ends the worker; tasks in hand have :data:`GRACE_S` seconds.

    Returns:
        How many tasks are handed back unfinished. The process must end without waiting for their threads.

    Raises:
        SchemaError: the database belongs to another release.
        EventBusRefusedError: the event bus refuses this client.
    """
    limit_arenas()
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    bus = settings.event_bus
    producer = Producer(bus, client_id=worker)
    liveness = Liveness.of_process()
    with Postgres(settings.database, application=worker) as postgres:
        if not _migrated(postgres, stop, liveness):
            return 0
        letters = DeadLetters(producer, bus.dead_letters_topic)
        tasks = handler(settings, postgres, worker=worker, stop=stop)

        def dead_letter(delivery: Delivery, error: Exception) -> None:
            tasks.abandon(delivery.message, error)
            letters.put(delivery, error)

        ending = threading.Event()
        companions = [
            threading.Thread(target=act, args=(ending,), daemon=True)
            for act in (
                partial(_heartbeat, postgres, worker),
                Relay(postgres, producer).run,
                beside(postgres),
            )
        ]
        for companion in companions:
            companion.start()
        log.info("worker %s takes %s, %d tasks at once", worker, bus.tasks_topic, TASKS_AT_ONCE)
        try:
            unfinished = Consumer(
                bus,
                topic=bus.tasks_topic,
                group=bus.workers_group,
                client_id=worker,
                concurrency=TASKS_AT_ONCE,
                work=tasks.work,
                dead_letter=dead_letter,
                alive=liveness.beat,
            ).run(stop, grace_s=GRACE_S)
        finally:
            ending.set()
            for companion in companions:
                companion.join(2)
            _leave(postgres, worker)
            producer.close()
    log.info("worker %s ends, %d tasks are handed back", worker, unfinished)
    return unfinished


def limit_arenas() -> None:
    """Let threads share two of malloc's arenas: glibc's eight per core keep freed memory apart."""
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    except (AttributeError, OSError):
        log.debug("this C library has no mallopt")


def _migrated(postgres: Postgres, stop: threading.Event, liveness: Liveness) -> bool:
    """Migrate the schema, waiting for the database; return False when the process ends before that."""

    def attempt() -> None:
        liveness.beat()  # waiting is no hanging: starting again would not bring the database back
        migrate(postgres)

    try:
        retry(attempt, backoff=_BACKOFF, on=DatabaseUnavailableError, wait=stop.wait)
    except RetryStoppedError:
        return False
    return True


def _heartbeat(postgres: Postgres, worker: str, stop: threading.Event) -> None:
    host, pid = socket.gethostname(), os.getpid()
    while True:
        _tolerating_outage(
            postgres,
            lambda connection: assignments.beat(
                connection, worker, host=host, pid=pid, concurrency=TASKS_AT_ONCE
            ),
        )
        if stop.wait(assignments.HEARTBEAT_EVERY_S):
            return


def _leave(postgres: Postgres, worker: str) -> None:
    _tolerating_outage(postgres, lambda connection: assignments.leave(connection, worker))


def _tolerating_outage(postgres: Postgres, act: Callable[..., None]) -> None:
    try:
        with postgres.transaction() as connection:
            act(connection)
    except DatabaseUnavailableError as error:
        log.warning("%s", error)
