"""The worker process: a member of the consumer group, with a heartbeat and an outbox relay beside it."""

import ctypes
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from marketlake.infrastructure.bus.consumer import Consumer, Delivery
from marketlake.infrastructure.bus.dead_letters import DeadLetters
from marketlake.infrastructure.bus.outbox import Relay
from marketlake.infrastructure.bus.producer import Producer
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres, migrate
from marketlake.retry import Backoff, RetryStoppedError, retry
from marketlake.settings import Settings
from marketlake.workers import assignments
from marketlake.workers.dispatcher import Dispatcher, TaskKind
from marketlake.workers.liveness import Liveness

log = logging.getLogger(__name__)

TASKS_AT_ONCE = 2
"""One is parsed while the other one is copied."""
GRACE_S = 10.0
"""How long tasks in hand may take to end after SIGTERM; less than the service's stop grace of 15 s."""
COMPANIONS_GRACE_S = 3.0
"""How long all that runs beside the tasks may take to end after that."""
_M_ARENA_MAX = -8
_BACKOFF = Backoff(longest_wait_s=5.0)


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """What all parts of a worker process share."""

    id: str
    """As it shows in tasks and batches."""
    settings: Settings
    postgres: Postgres
    relay: Relay
    """Publishes the outbox."""
    stop: threading.Event
    """Set when the process is to end: waiting ends then."""


Kinds = Callable[[WorkerProcess], Mapping[str, TaskKind]]
"""Returns what works on tasks, by the name of their kind."""
Companion = Callable[[threading.Event], None]
"""Runs in a thread of its own until the event is set."""
Companions = Callable[[WorkerProcess], Sequence[Companion]]


def run(settings: Settings, kinds: Kinds, *, beside: Companions, stop: threading.Event) -> int:
    """Work on tasks until `stop` is set.

    Args:
        settings: the environment.
        kinds: makes what works on the tasks.
        beside: makes what runs beside that as long as the worker does.
        stop: ends the worker; tasks in hand have :data:`GRACE_S` seconds.

    Returns:
        How many threads are still at work, on tasks that are handed back or beside. The process must end without
        waiting for them.

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
        process = WorkerProcess(worker, settings, postgres, Relay(postgres, producer), stop)
        tasks = Dispatcher(postgres, worker=worker, kinds=kinds(process))

        def dead_letter(delivery: Delivery, error: Exception) -> None:
            tasks.abandon(delivery.message, error)
            letters.put(delivery, error)

        _beat(postgres, worker)  # before anything is claimed: a claim is held by who is alive
        ending = threading.Event()
        acts: list[Companion] = [partial(_heartbeat, postgres, worker), process.relay.run, *beside(process)]
        companions = [threading.Thread(target=act, args=(ending,), daemon=True) for act in acts]
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
            deadline = time.monotonic() + COMPANIONS_GRACE_S
            for companion in companions:
                companion.join(max(0.0, deadline - time.monotonic()))
            _leave(postgres, worker)
            producer.close()
    log.info("worker %s ends, %d tasks are handed back", worker, unfinished)
    return unfinished + sum(companion.is_alive() for companion in companions)


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
    while not stop.wait(assignments.HEARTBEAT_EVERY_S):
        _beat(postgres, worker)


def _beat(postgres: Postgres, worker: str) -> None:
    host, pid = socket.gethostname(), os.getpid()
    _tolerating_outage(
        postgres,
        lambda connection: assignments.beat(
            connection, worker, host=host, pid=pid, concurrency=TASKS_AT_ONCE
        ),
    )


def _leave(postgres: Postgres, worker: str) -> None:
    _tolerating_outage(postgres, lambda connection: assignments.leave(connection, worker))


def _tolerating_outage(postgres: Postgres, act: Callable[..., None]) -> None:
    try:
        with postgres.transaction() as connection:
            act(connection)
    except DatabaseUnavailableError as error:
        log.warning("%s", error)
