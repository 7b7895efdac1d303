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

from marketlake.errors import MarketlakeError
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


class CompanionEndedError(MarketlakeError):
    """What runs beside the tasks came to an unforeseen end; the process has to be started anew."""

    code = "companion-ended"


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
        CompanionEndedError: a companion ended before the worker was told to. What was in hand is handed back.
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
        companions = _Companions(
            [partial(_heartbeat, postgres, worker), process.relay.run, *beside(process)], stop
        )
        companions.start()
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
            at_work = companions.end()
            _leave(postgres, worker)
            producer.close()
    log.info("worker %s ends, %d tasks are handed back", worker, unfinished)
    companions.raise_if_one_ended_early()
    return unfinished + at_work


class _Companions:
    """What runs beside the tasks, in a thread each. One that ends too early ends the worker with it.

    Without its committer or its heartbeat a worker would go on for ever, and nothing would come of its work.
    """

    def __init__(self, acts: Sequence[Companion], stop: threading.Event) -> None:
        self._stop = stop
        self._ending = threading.Event()
        self._failure: tuple[Companion, Exception | None] | None = None
        self._threads = [threading.Thread(target=self._run, args=(act,), daemon=True) for act in acts]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> int:
        """End them, and return how many are still at work after the grace."""
        self._ending.set()
        deadline = time.monotonic() + COMPANIONS_GRACE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)

    def raise_if_one_ended_early(self) -> None:
        """Raise CompanionEndedError if one ended while the worker was at work."""
        if self._failure is not None:
            act, error = self._failure
            raise CompanionEndedError(
                f"{_name_of(act)} ended while the worker was at work: the process is to be started anew"
            ) from error

    def _run(self, act: Companion) -> None:
        try:
            act(self._ending)
        except Exception as error:
            log.exception("%s failed", _name_of(act))
            self._ended(act, error)
        else:
            self._ended(act, None)

    def _ended(self, act: Companion, error: Exception | None) -> None:
        if not self._ending.is_set():
            log.error("%s ended too early, and this worker with it", _name_of(act))
            self._failure = (act, error)
            self._stop.set()


def _name_of(act: Companion) -> str:
    whole = act.func if isinstance(act, partial) else act
    return getattr(whole, "__qualname__", repr(whole))


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
