"""CloudEvents on the event bus: confirmed publishing, consuming with long work, outbox and dead letters."""

from marketlake.infrastructure.bus.connection import (
    EventBusRefusedError,
    EventBusUnavailableError,
    client_configuration,
)
from marketlake.infrastructure.bus.consumer import Consumer, Delivery, RetryLaterError
from marketlake.infrastructure.bus.dead_letters import DeadLetters
from marketlake.infrastructure.bus.envelope import EnvelopeError, Event, Message
from marketlake.infrastructure.bus.outbox import Relay
from marketlake.infrastructure.bus.producer import Producer

__all__ = [
    "Consumer",
    "DeadLetters",
    "Delivery",
    "EnvelopeError",
    "Event",
    "EventBusRefusedError",
    "EventBusUnavailableError",
    "Message",
    "Producer",
    "Relay",
    "RetryLaterError",
    "client_configuration",
]
