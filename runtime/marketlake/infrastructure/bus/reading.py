"""How far a consumer group has read a topic."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaException, TopicPartition

from marketlake.infrastructure.bus.connection import client_configuration, named
from marketlake.settings import EventBus

_TIMEOUT_S = 10.0


class Reading:
    """Looks at the position of a consumer group in a topic, without being a member of it.

    Args:
        bus: the event bus.
        topic: what is read.
        group: who reads.
        client_id: of who looks.
    """

    def __init__(self, bus: EventBus, *, topic: str, group: str, client_id: str) -> None:
        self._bus = bus
        self._topic = topic
        self._configuration = client_configuration(bus, client_id=client_id) | {
            "group.id": group,
            "enable.auto.commit": False,
        }

    def end(self) -> dict[int, int]:
        """Return the offset behind the last message of each partition.

        Raises:
            EventBusUnavailableError, EventBusRefusedError: it cannot be told.
        """
        with self._client() as client:
            return {partition: last for partition, (_, last) in self._held(client).items()}

    def is_past(self, end: Mapping[int, int]) -> bool:
        """Return whether all that lay before an :meth:`end` was read, or is not there any more.

        Raises:
            EventBusUnavailableError, EventBusRefusedError: it cannot be told.
        """
        with self._client() as client:
            held = self._held(client)
            asked = [TopicPartition(self._topic, partition) for partition in held]
            read = {each.partition: each.offset for each in client.committed(asked, timeout=_TIMEOUT_S)}
        for partition, wanted in end.items():
            first, last = held.get(partition, (0, 0))
            if last < wanted:
                continue  # the topic was made anew since
            if max(read.get(partition, 0), first) < wanted:
                return False
        return True

    def _held(self, client: KafkaConsumer) -> dict[int, tuple[int, int]]:
        """The first offset of each partition, and the one behind the last."""
        topic = client.list_topics(self._topic, timeout=_TIMEOUT_S).topics[self._topic]
        if topic.error is not None:
            raise KafkaException(topic.error)
        return {
            partition: client.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=_TIMEOUT_S, cached=False
            )
            for partition in topic.partitions
        }

    @contextmanager
    def _client(self) -> Iterator[KafkaConsumer]:
        with closing(KafkaConsumer(self._configuration)) as client:
            try:
                yield client
            except KafkaException as error:
                raise named(error, bus=self._bus, doing=f"looking at {self._topic}") from error
