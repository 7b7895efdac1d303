import threading
from typing import NoReturn

import pytest
from marketlake.infrastructure.bus.consumer import Consumer, Delivery
from marketlake.infrastructure.bus.envelope import Event, Message

from tests.unit.marketlake.samples import settings


def test_a_dead_letter_that_cannot_be_kept_ends_neither_its_thread_nor_its_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buried: list[Delivery] = []
    pauses: list[float | None] = []

    def work(_: Event) -> NoReturn:
        raise AssertionError("garbage is not worked on")

    def dead_letter(delivery: Delivery, _: Exception) -> None:
        buried.append(delivery)
        if len(buried) < 3:
            raise UnicodeError("a defect of who keeps dead letters")

    bus = settings().event_bus
    consumer = Consumer(
        bus,
        topic=bus.tasks_topic,
        group="g",
        client_id="c",
        concurrency=1,
        work=work,
        dead_letter=dead_letter,
    )

    def wait(_: threading.Event, timeout: float | None = None) -> bool:
        pauses.append(timeout)
        return False

    monkeypatch.setattr(threading.Event, "wait", wait)
    assert consumer._consumed(Delivery("tasks", 0, 0, Message(key=None, value=b"garbage")))
    assert len(buried) == 3
    assert len(pauses) == 2
