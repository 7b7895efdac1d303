"""Publish with confirmation: a call returns when the brokers have what was sent."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as KafkaProducer

from marketlake.infrastructure.bus.connection import (
    EventBusUnavailableError,
    client_configuration,
    is_lasting,
    named,
)
from marketlake.infrastructure.bus.envelope import Message
from marketlake.settings import EventBus

CONFIRMATION_TIMEOUT_S = 10.0


class Producer:
    """An idempotent producer that waits for all in-sync replicas. Safe to use from several threads."""

    def __init__(self, bus: EventBus, *, client_id: str, timeout_s: float = CONFIRMATION_TIMEOUT_S) -> None:
        self._bus = bus
        self._timeout_s = timeout_s
        self._configuration: dict[str, Any] = client_configuration(bus, client_id=client_id) | {
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            "linger.ms": 5,
            "message.timeout.ms": int(timeout_s * 1000),
            "error_cb": self._note_refusal,
        }
        self._refusals: list[KafkaError] = []
        self._lock = threading.Lock()
        self._client: KafkaProducer | None = None

    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Send the messages in order and wait until all are confirmed.

        Raises:
            EventBusUnavailableError: not all were confirmed in time; some may have arrived, so the repetition
                is seen twice by consumers, who recognise it by the event's id.
            EventBusRefusedError: a message or this client is not accepted.
        """
        if not messages:
            return
        with self._lock:
            failures: list[KafkaError] = []
            confirmed = 0

            def note(error: KafkaError | None, _: Any) -> None:
                nonlocal confirmed
                if error is None:
                    confirmed += 1
                else:
                    failures.append(error)

            self._refusals.clear()
            client = self._client or KafkaProducer(self._configuration)
            self._client = client
            deadline = time.monotonic() + self._timeout_s + 1
            try:
                for message in messages:
                    self._hand_over(client, topic, message, note)
                while confirmed + len(failures) < len(messages) and time.monotonic() < deadline:
                    if self._refusals:
                        failures.extend(self._refusals)
                        break
                    client.poll(0.05)
            except KafkaException as error:
                self._abandon(client)
                raise named(error, bus=self._bus, doing=f"publishing to {topic}") from error
            if failures:
                self._abandon(client)
                raise named(failures[0], bus=self._bus, doing=f"publishing to {topic}")
            if confirmed < len(messages):
                self._abandon(client)
                raise EventBusUnavailableError(
                    f"publishing to {topic}: the event bus at {self._bus.bootstrap_servers} confirmed "
                    f"{confirmed} of {len(messages)} messages within {self._timeout_s:g} s. "
                    "Look at `marketlake status`; `make up` starts what was stopped."
                )

    def close(self) -> None:
        """Drop the connection; nothing is left to send, because :meth:`publish` waits."""
        with self._lock:
            if self._client is not None:
                self._abandon(self._client)

    def _abandon(self, client: KafkaProducer) -> None:
        """Forget what the client still holds: it would otherwise arrive after it was reported as failed."""
        client.purge()
        client.poll(0)
        self._client = None

    def _note_refusal(self, error: KafkaError) -> None:
        """Credentials that are refused show beside the messages, which would wait for their time-out."""
        if is_lasting(error):
            self._refusals.append(error)

    @staticmethod
    def _hand_over(client: KafkaProducer, topic: str, message: Message, note: Any) -> None:
        while True:
            try:
                client.produce(
                    topic,
                    value=message.value,
                    key=message.key,
                    headers=list(message.headers),
                    on_delivery=note,
                )
                return
            except BufferError:  # the local queue is full: let the brokers take some
                client.poll(0.1)
