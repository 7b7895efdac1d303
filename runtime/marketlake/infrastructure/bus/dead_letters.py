"""Keep messages that cannot be processed, with the reason, for a person to inspect and send again."""

from marketlake.infrastructure.bus.connection import EventBusRefusedError, EventBusUnavailableError
from marketlake.infrastructure.bus.consumer import Delivery, RetryLaterError
from marketlake.infrastructure.bus.producer import Producer

REASON = "dead-letter-reason"
KIND = "dead-letter-error"
ORIGIN = "dead-letter-origin"
_LONGEST_REASON = 2000


class DeadLetters:
    """The dead-letter topic."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    def put(self, delivery: Delivery, error: Exception) -> None:
        """Keep the message as it came (key, value, headers), with headers that say where from and why.

        Raises:
            RetryLaterError: the event bus does not take it now.
        """
        reason = {
            KIND: type(error).__name__,
            REASON: str(error)[:_LONGEST_REASON],
            ORIGIN: f"{delivery.topic}/{delivery.partition}@{delivery.offset}",
        }
        message = delivery.message
        headers = message.headers + tuple(
            (name, text.encode(errors="replace")) for name, text in reason.items()
        )
        letter = type(message)(key=message.key, value=message.value, headers=headers)
        try:
            self._producer.publish(self._topic, [letter])
        except (EventBusUnavailableError, EventBusRefusedError) as problem:
            raise RetryLaterError(f"a dead letter could not be kept: {problem}") from problem
