"""Consume with long work: the position moves only after the work, and polling never stops meanwhile.

One thread polls and keeps the group's membership alive; others work. A message counts as consumed when its
work ended or it lies among the dead letters; the position that is committed never passes a message that is
still being worked on. After a kill -9 the group notices within `SESSION_TIMEOUT_MS` and the message goes to
another member, so work must be idempotent.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from marketlake.errors import MarketlakeError
from marketlake.infrastructure.bus.connection import (
    ErrorLog,
    EventBusRefusedError,
    client_configuration,
    named,
)
from marketlake.infrastructure.bus.envelope import Event, Message
from marketlake.infrastructure.bus.position import Positions
from marketlake.retry import Backoff, RetryStoppedError, retry
from marketlake.settings import EventBus

log = logging.getLogger(__name__)

SESSION_TIMEOUT_MS = 6_000
"""The shortest that brokers accept by default (group.min.session.timeout.ms)."""
_POLL_S = 0.05
_IDLE_POLL_S = 0.5
_BACKOFF = Backoff(first_wait_s=0.25, longest_wait_s=10.0)


class RetryLaterError(MarketlakeError):
    """Raised by work that something outside prevents: the message is tried again, for as long as it takes."""

    code = "retry-later"
    transient = True


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message and where it came from."""

    topic: str
    partition: int
    offset: int
    message: Message


class Consumer:
    """A member of a consumer group that works on several messages at once.

    Args:
        bus: the event bus.
        topic: where messages come from.
        group: the consumer group.
        concurrency: messages that are worked on at the same time.
        work: does what an event asks for; any exception but :class:`RetryLaterError` makes it a dead letter.
        dead_letter: keeps a message that cannot be worked on, and returns when it is safe; if it raises, the message
            is tried again later.
        alive: called each time that the main loop comes round, every few seconds at least.
    """

    def __init__(
        self,
        bus: EventBus,
        *,
        topic: str,
        group: str,
        client_id: str,
        concurrency: int,
        work: Callable[[Event], None],
        dead_letter: Callable[[Delivery, Exception], None],
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._bus = bus
        self._topic = topic
        self._concurrency = concurrency
        self._work = work
        self._dead_letter = dead_letter
        self._alive = alive
        self._configuration: dict[str, Any] = client_configuration(bus, client_id=client_id) | {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "heartbeat.interval.ms": SESSION_TIMEOUT_MS // 3,
            "max.poll.interval.ms": 300_000,
            "fetch.wait.max.ms": 100,
            "topic.metadata.refresh.interval.ms": 5_000,
            "error_cb": ErrorLog(bus, doing=f"consuming {topic}"),
        }
        self._positions = Positions()
        self._waiting: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._may_be_paused = False
        """Partitions are to be read that may be paused: the client keeps a pause while it has lost them."""

    def run(self, stop: threading.Event, *, grace_s: float) -> int:
        """Consume until `stop` is set, then wait up to `grace_s` seconds for the work that goes on.

        Returns:
            How many messages were still being worked on at the end; they are handed back, that is, delivered
            again to this group.

        Raises:
            EventBusRefusedError: the event bus does not let this member in.
        """
        self._stop = stop
        client = KafkaConsumer(self._configuration)
        client.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        threads = [
            threading.Thread(target=self._work_on, name=f"work-{number}", daemon=True)
            for number in range(self._concurrency)
        ]
        for thread in threads:
            thread.start()
        paused = False
        try:
            while not stop.is_set():
                self._alive()
                paused = self._paced(client, paused=paused)
                # a message ends the wait at once; while work goes on, its end must be seen soon, too
                self._take(client.poll(_POLL_S if self._positions.open_count() else _IDLE_POLL_S))
                self._commit(client, wait=False)
            self._wind_down(client, threads, grace_s)
            self._commit(client, wait=True)
            return sum(thread.is_alive() for thread in threads)
        finally:
            stop.set()
            client.close()

    def _paced(self, client: KafkaConsumer, *, paused: bool) -> bool:
        """Stop fetching while enough lies here, so that other members get the rest; polling goes on."""
        open_messages = self._positions.open_count()
        if not paused and open_messages >= 2 * self._concurrency:
            paused = True
        elif paused and open_messages <= self._concurrency:
            paused, self._may_be_paused = False, True
        if paused:  # each time: partitions that a rebalance has just brought are not paused yet
            client.pause(client.assignment())
        elif self._may_be_paused:
            self._may_be_paused = False
            client.resume(client.assignment())
        return paused

    def _take(self, raw: KafkaMessage | None) -> None:
        if raw is None:
            return
        error = raw.error()
        if error is not None:
            problem = named(error, bus=self._bus, doing=f"consuming {self._topic}")
            if error.fatal() or isinstance(problem, EventBusRefusedError):
                raise problem
            log.warning("%s", problem)
            return
        delivery = _delivery(raw)
        if self._positions.begin(delivery.partition, delivery.offset):
            self._waiting.put(delivery)

    def _work_on(self) -> None:
        while not self._stop.is_set():
            try:
                delivery = self._waiting.get(timeout=_IDLE_POLL_S)
            except queue.Empty:
                continue
            if self._positions.is_open(delivery.partition, delivery.offset) and self._consumed(delivery):
                self._positions.end(delivery.partition, delivery.offset)

    def _consumed(self, delivery: Delivery) -> bool:
        """Work until the message is done or a dead letter; return False when the member stops before that."""
        try:
            retry(
                partial(self._done_or_dead_letter, delivery),
                backoff=_BACKOFF,
                on=RetryLaterError,
                wait=self._stop.wait,
            )
        except RetryStoppedError:
            return False
        return True

    def _done_or_dead_letter(self, delivery: Delivery) -> None:
        try:
            self._work(Event.from_message(delivery.message))
        except RetryLaterError:
            raise
        except Exception as error:  # whatever it is, one message must not stop the others
            log.exception(
                "message %s/%d@%d is put among the dead letters",
                delivery.topic,
                delivery.partition,
                delivery.offset,
            )
            self._put_among_dead_letters(delivery, error)

    def _put_among_dead_letters(self, delivery: Delivery, error: Exception) -> None:
        try:
            self._dead_letter(delivery, error)
        except RetryLaterError:
            raise
        except Exception as problem:
            # the thread would end with it, and its message would stay open for ever
            log.exception("the dead letter was not kept")
            raise RetryLaterError(
                f"{delivery.topic}/{delivery.partition}@{delivery.offset} could not be put among the dead letters: "
                f"{type(problem).__name__}: {problem}"
            ) from problem

    def _wind_down(self, client: KafkaConsumer, threads: list[threading.Thread], grace_s: float) -> None:
        client.pause(client.assignment())
        deadline = time.monotonic() + grace_s
        while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
            self._alive()
            self._take(client.poll(_POLL_S))

    def _commit(self, client: KafkaConsumer, *, wait: bool, only: set[int] | None = None) -> None:
        offsets = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in self._positions.advanced(only).items()
        ]
        if not offsets:
            return
        try:
            if wait:
                client.commit(offsets=offsets, asynchronous=False)
            else:
                client.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:  # the work is idempotent: a lost commit costs a repetition
            log.warning("%s", named(error, bus=self._bus, doing=f"committing the position in {self._topic}"))

    def _assigned(self, _: KafkaConsumer, __: list[TopicPartition]) -> None:
        self._may_be_paused = True

    def _revoked(self, client: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        gone = {partition.partition for partition in partitions}
        self._commit(client, wait=True, only=gone)
        self._positions.forget(gone)

    def _lost(self, _: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._positions.forget({partition.partition for partition in partitions})


def _delivery(raw: KafkaMessage) -> Delivery:
    key: Any = raw.key()
    headers: Any = raw.headers() or ()  # a list of pairs; the client's annotations allow more
    message = Message(
        key=None if key is None else key.decode("utf-8", "replace"),
        value=raw.value() or b"",
        headers=tuple((name, value) for name, value in headers if value is not None),
    )
    return Delivery(raw.topic() or "", raw.partition() or 0, raw.offset() or 0, message)
