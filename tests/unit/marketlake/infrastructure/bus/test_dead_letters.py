from collections.abc import Sequence
from typing import Any

import pytest
from marketlake.infrastructure.bus.connection import EventBusRefusedError, EventBusUnavailableError
from marketlake.infrastructure.bus.consumer import Delivery, RetryLaterError
from marketlake.infrastructure.bus.dead_letters import KIND, ORIGIN, REASON, DeadLetters
from marketlake.infrastructure.bus.envelope import Message

DELIVERY = Delivery("tasks", 3, 42, Message(key="k", value=b"v", headers=(("own", b"1"),)))


class Bus:
    """A producer that keeps what it is given, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.kept: list[tuple[str, Message]] = []

    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        if self.error is not None:
            raise self.error
        self.kept += [(topic, message) for message in messages]


def put(bus: Bus, error: Exception) -> None:
    producer: Any = bus
    DeadLetters(producer, "dead").put(DELIVERY, error)


def test_a_dead_letter_is_the_message_with_reason_and_origin() -> None:
    bus = Bus()
    put(bus, ValueError("x" * 5000))
    ((topic, letter),) = bus.kept
    assert (topic, letter.key, letter.value) == ("dead", "k", b"v")
    assert (letter.header("own"), letter.header(KIND)) == ("1", "ValueError")
    assert letter.header(ORIGIN) == "tasks/3@42"
    assert letter.header(REASON) == "x" * 2000


@pytest.mark.parametrize("error", [EventBusUnavailableError("away"), EventBusRefusedError("no")])
def test_a_letter_that_cannot_be_kept_is_not_lost(error: Exception) -> None:
    with pytest.raises(RetryLaterError, match=r"a dead letter could not be kept: (away|no)"):
        put(Bus(error), ValueError("x"))


def test_a_reason_that_is_no_unicode_text_is_kept_as_far_as_it_is() -> None:
    bus = Bus()
    put(bus, ValueError("a\ud800b\0"))
    assert bus.kept[0][1].header(REASON) == "a?b\0"
