"""The envelope of every event on the event bus: CloudEvents 1.0, binary content mode on Kafka.

Binary mode is written, both modes are read. The W3C trace context travels as the distributed-tracing
extension (`traceparent`) and, for consumers that know nothing of CloudEvents, as a header of the same name.
Sources: CloudEvents specification 1.0.2, its Kafka protocol binding and its distributed tracing extension.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import uuid4

from cloudevents.core.bindings import kafka
from cloudevents.core.exceptions import BaseCloudEventException
from cloudevents.core.v1.event import CloudEvent
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marketlake.errors import MarketlakeError

TRACEPARENT = "traceparent"
DATA_CONTENT_TYPE = "application/json"


class EnvelopeError(MarketlakeError):
    """The message is no CloudEvent with a JSON object in it; the text says what is wrong."""

    code = "envelope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A Kafka message, sent or received."""

    key: str | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()

    def header(self, name: str) -> str | None:
        """Return the last header of that name, as text."""
        values = [value for header, value in self.headers if header == name and value is not None]
        return values[-1].decode("utf-8", "replace") if values else None


class Event(BaseModel):
    """One CloudEvent whose data is a JSON object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default_factory=lambda: str(uuid4()), min_length=1)
    """Unique within `source`: what consumers recognise a repetition by."""
    source: str = Field(min_length=1)
    """URI reference of what tells it, e.g. ``/marketlake/collection``."""
    type: str = Field(min_length=1)
    """Reverse-DNS-like name of what happened, e.g. ``marketlake.files.collected``."""
    subject: str | None = None
    """What it happened to."""
    time: datetime = Field(default_factory=lambda: datetime.now(UTC))
    partition_key: str | None = None
    """Events of the same key keep their order."""
    traceparent: str | None = None
    data: dict[str, Any]

    def to_message(self) -> Message:
        """Return the Kafka message in binary content mode."""
        attributes = {
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time,
            "datacontenttype": DATA_CONTENT_TYPE,
            TRACEPARENT: self.traceparent,
        }
        event = CloudEvent(
            {name: value for name, value in attributes.items() if value is not None}, self.data
        )
        bound = kafka.to_binary_event(event)
        headers = dict(bound.headers)
        if self.traceparent is not None:
            headers[TRACEPARENT] = self.traceparent.encode()
        return Message(key=self.partition_key, value=bound.value, headers=tuple(headers.items()))

    @classmethod
    def from_message(cls, message: Message) -> Self:
        """Return the event in a Kafka message of either content mode.

        Raises:
            EnvelopeError: it is none.
        """
        headers = {name: value for name, value in message.headers if value is not None}
        try:
            event = kafka.from_kafka_event(kafka.KafkaMessage(headers, message.key, message.value))
            return cls(
                id=event.get_id(),
                source=event.get_source(),
                type=event.get_type(),
                subject=event.get_subject(),
                time=event.get_time() or datetime.now(UTC),
                partition_key=message.key,
                traceparent=message.header(TRACEPARENT) or event.get_extension(TRACEPARENT),
                data=event.get_data(),  # anything but an object is refused by pydantic
            )
        except ValidationError as error:
            raise EnvelopeError(f"not a usable CloudEvent: {_problems(error)}") from error
        except (BaseCloudEventException, KeyError, ValueError, TypeError, AttributeError) as error:
            raise EnvelopeError(f"not a CloudEvent: {type(error).__name__}: {error}") from error


def _problems(error: ValidationError) -> str:
    found: Iterable[str] = (
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
    )
    return "; ".join(found)
