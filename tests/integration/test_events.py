"""Events on a real broker: nothing is lost, nothing is committed before its work, poison is put aside."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from marketlake.infrastructure.bus import outbox
from marketlake.infrastructure.bus.connection import (
    EventBusRefusedError,
    EventBusUnavailableError,
    client_configuration,
)
from marketlake.infrastructure.bus.consumer import SESSION_TIMEOUT_MS, Consumer, RetryLaterError
from marketlake.infrastructure.bus.dead_letters import KIND, ORIGIN, REASON, DeadLetters
from marketlake.infrastructure.bus.envelope import Event, Message
from marketlake.infrastructure.bus.outbox import Relay
from marketlake.infrastructure.bus.producer import Producer
from marketlake.infrastructure.postgres import Postgres, migrate
from marketlake.settings import EventBus

from tests import servers
from tests.provisioning import messages, own_topics, texts
from tests.unit.marketlake.samples import settings
from tests.waiting import eventually


def event(number: int, *, key: str | None = None, traceparent: str | None = None) -> Event:
    return Event(
        source="/test",
        type="test.happened",
        partition_key=key,
        traceparent=traceparent,
        data={"number": number},
    )


@pytest.fixture
def bus(kafka: EventBus) -> EventBus:
    return own_topics(kafka)


@pytest.fixture
def producer(bus: EventBus) -> Iterator[Producer]:
    producer = Producer(bus, client_id="test")
    yield producer
    producer.close()


@pytest.fixture
def database(postgres_server: servers.Postgres) -> Iterator[Postgres]:
    with Postgres(
        postgres_server.create_database(f"events{uuid4().hex[:8]}"), application="test"
    ) as database:
        migrate(database)
        yield database


class Member:
    """A consumer that runs in a thread of the test."""

    def __init__(
        self,
        bus: EventBus,
        producer: Producer,
        work: Callable[[Event], None],
        *,
        group: str = "test",
        concurrency: int = 2,
    ) -> None:
        self.stop = threading.Event()
        self.unfinished: int | None = None
        self.beats = 0
        consumer = Consumer(
            bus,
            topic=bus.tasks_topic,
            group=group,
            client_id="member",
            concurrency=concurrency,
            work=work,
            dead_letter=DeadLetters(producer, bus.dead_letters_topic).put,
            alive=self._beat,
        )

        def run() -> None:
            self.unfinished = consumer.run(self.stop, grace_s=5)

        self._thread = threading.Thread(target=run, daemon=True)

    def _beat(self) -> None:
        self.beats += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_an_event_arrives_as_it_was_sent_with_its_trace_context(bus: EventBus, producer: Producer) -> None:
    sent = event(1, key="a", traceparent=f"00-{'1' * 32}-{'2' * 16}-01")
    producer.publish(bus.events_topic, [sent.to_message()])
    (raw,) = messages(bus, bus.events_topic, at_least=1)
    assert dict(raw.headers())["ce_specversion"] == b"1.0"
    assert dict(raw.headers())["traceparent"] == sent.traceparent.encode()  # type: ignore[union-attr]
    received = Event.from_message(
        Message(key=raw.key().decode(), value=raw.value(), headers=tuple(raw.headers()))
    )
    assert received == sent


def test_a_member_without_work_still_gives_signs_of_life(bus: EventBus, producer: Producer) -> None:
    with Member(bus, producer, lambda _: None) as member:
        eventually(lambda: member.beats >= 3)


def test_events_of_one_key_keep_their_order(bus: EventBus, producer: Producer) -> None:
    producer.publish(bus.events_topic, [event(number, key="same").to_message() for number in range(200)])
    found = messages(bus, bus.events_topic, at_least=200)
    assert [raw.value() for raw in found] == [b'{"number": %d}' % number for number in range(200)]


def test_publishing_to_a_topic_that_does_not_exist_says_so(bus: EventBus) -> None:
    producer = Producer(bus, client_id="test", timeout_s=2)
    with pytest.raises(EventBusUnavailableError, match="publishing to nowhere"):
        producer.publish("nowhere", [event(1).to_message()])


def test_a_message_that_the_broker_cannot_take_is_refused_for_good(bus: EventBus, producer: Producer) -> None:
    huge = Message(key=None, value=os.urandom(8_000_000))
    with pytest.raises(EventBusRefusedError, match="MSG_SIZE_TOO_LARGE"):
        producer.publish(bus.events_topic, [huge])
    producer.publish(bus.events_topic, [event(1).to_message()])
    assert texts(messages(bus, bus.events_topic, at_least=1)) == ['{"number": 1}']


def test_what_was_consumed_is_not_delivered_again_and_what_was_not_is(
    bus: EventBus, producer: Producer
) -> None:
    seen: list[int] = []
    producer.publish(bus.tasks_topic, [event(number).to_message() for number in range(20)])
    with Member(bus, producer, lambda event: seen.append(event.data["number"])):
        eventually(lambda: len(seen) == 20)
    producer.publish(bus.tasks_topic, [event(20).to_message()])
    with Member(bus, producer, lambda event: seen.append(event.data["number"])):
        eventually(lambda: 20 in seen)
        time.sleep(1)
    assert sorted(seen) == list(range(21))


def test_work_that_takes_longer_than_the_session_keeps_its_message_and_lets_others_pass(
    bus: EventBus, producer: Producer
) -> None:
    begun: list[int] = []

    def work(event: Event) -> None:
        begun.append(event.data["number"])
        if event.data["number"] == 0:
            time.sleep(9)

    producer.publish(bus.tasks_topic, [event(0).to_message()])
    with Member(bus, producer, work):
        eventually(lambda: begun == [0])
        producer.publish(bus.tasks_topic, [event(number).to_message() for number in range(1, 11)])
        eventually(lambda: len(begun) == 11, within_s=8)
        time.sleep(9)
    assert sorted(begun) == list(range(11))


def test_a_poison_message_becomes_a_dead_letter_and_the_others_are_worked_on(
    bus: EventBus, producer: Producer
) -> None:
    seen: list[int] = []

    def work(event: Event) -> None:
        if event.data["number"] == 13:
            raise ValueError("thirteen cannot be worked on")
        seen.append(event.data["number"])

    poison = Message(key="k", value=b"not json at all", headers=(("own", b"header"),))
    producer.publish(bus.tasks_topic, [poison, event(13).to_message(), event(1).to_message()])
    with Member(bus, producer, work):
        eventually(lambda: seen == [1])
        letters = messages(bus, bus.dead_letters_topic, at_least=2)
    by_kind = {dict(letter.headers())[KIND].decode(): letter for letter in letters}
    assert set(by_kind) == {"EnvelopeError", "ValueError"}
    kept = by_kind["EnvelopeError"]
    assert (kept.key(), kept.value()) == (b"k", b"not json at all")
    assert dict(kept.headers())["own"] == b"header"
    assert dict(kept.headers())[ORIGIN].startswith(bus.tasks_topic.encode())
    assert dict(by_kind["ValueError"].headers())[REASON] == b"thirteen cannot be worked on"


def test_work_that_something_prevents_is_tried_until_it_succeeds(bus: EventBus, producer: Producer) -> None:
    attempts: list[int] = []

    def work(_: Event) -> None:
        attempts.append(1)
        if len(attempts) < 4:
            raise RetryLaterError("the database is away")

    producer.publish(bus.tasks_topic, [event(1).to_message()])
    with Member(bus, producer, work):
        eventually(lambda: len(attempts) == 4)
        time.sleep(0.5)
    assert len(attempts) == 4
    assert messages(bus, bus.dead_letters_topic) == []


def test_a_topic_that_is_made_anew_is_read_from_its_beginning(bus: EventBus, producer: Producer) -> None:
    seen: list[int] = []
    admin = AdminClient(client_configuration(bus, client_id="admin"))
    producer.publish(bus.tasks_topic, [event(number, key="one").to_message() for number in range(10)])
    with Member(bus, producer, lambda event: seen.append(event.data["number"])):
        eventually(lambda: len(seen) == 10)
        admin.delete_topics([bus.tasks_topic])[bus.tasks_topic].result(20)
        eventually(lambda: bus.tasks_topic not in admin.list_topics(timeout=10).topics)
        admin.create_topics([NewTopic(bus.tasks_topic, 4, 1)])[bus.tasks_topic].result(20)
        fresh = Producer(bus, client_id="fresh")
        eventually(lambda: _published(fresh, bus.tasks_topic))
        eventually(lambda: 99 in seen, within_s=40)


def _published(producer: Producer, topic: str) -> bool:
    try:
        producer.publish(topic, [event(99, key="one").to_message()])
    except EventBusUnavailableError:
        return False
    return True


def test_a_member_that_ends_hands_back_what_it_had_not_begun(bus: EventBus, producer: Producer) -> None:
    release, seen = threading.Event(), []

    def slow(event: Event) -> None:
        seen.append(event.data["number"])
        release.wait(20)

    producer.publish(bus.tasks_topic, [event(number, key="one").to_message() for number in range(4)])
    with Member(bus, producer, slow, concurrency=1) as member:
        eventually(lambda: seen == [0])
        member.stop.set()
        release.set()
    assert member.unfinished == 0
    rest: list[int] = []
    with Member(bus, producer, lambda event: rest.append(event.data["number"])):
        eventually(lambda: len(rest) == 3)
    assert sorted(rest) == [1, 2, 3]


def test_a_member_does_not_wait_for_ever_for_work_in_hand(bus: EventBus, producer: Producer) -> None:
    began = threading.Event()

    def endless(_: Event) -> None:
        began.set()
        time.sleep(30)

    producer.publish(bus.tasks_topic, [event(1).to_message()])
    with Member(bus, producer, endless) as member:
        assert began.wait(20)
    assert member.unfinished == 1


CRASHING_MEMBER = """
import json, sys, threading, time
from marketlake.infrastructure.bus.consumer import Consumer
from marketlake.settings import Settings
bus = Settings(**json.load(sys.stdin)).event_bus
def work(event):
    print("begun", flush=True)
    time.sleep(600)
Consumer(bus, topic=bus.tasks_topic, group="test", client_id="crashing", concurrency=1, work=work,
         dead_letter=lambda *_: None).run(threading.Event(), grace_s=1)
"""


def test_after_kill_9_another_member_gets_the_message_soon(bus: EventBus, producer: Producer) -> None:
    producer.publish(bus.tasks_topic, [event(7).to_message()])
    crashing = subprocess.Popen(
        [sys.executable, "-c", CRASHING_MEMBER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert crashing.stdin is not None
    assert crashing.stdout is not None
    crashing.stdin.write(settings(event_bus=bus).to_json())
    crashing.stdin.close()
    assert crashing.stdout.readline() == "begun\n"
    seen: list[int] = []
    with Member(bus, producer, lambda event: seen.append(event.data["number"])):
        time.sleep(1)
        assert seen == []
        crashing.send_signal(signal.SIGKILL)
        crashing.wait()
        eventually(lambda: seen == [7], within_s=20)


def test_members_share_the_work_and_a_newcomer_does_not_repeat_it(bus: EventBus, producer: Producer) -> None:
    seen: list[tuple[str, int]] = []

    def work(name: str) -> Callable[[Event], None]:
        def note(event: Event) -> None:
            time.sleep(0.02)
            seen.append((name, event.data["number"]))

        return note

    producer.publish(bus.tasks_topic, [event(number, key=str(number)).to_message() for number in range(300)])
    with Member(bus, producer, work("first")):
        eventually(lambda: len(seen) > 20)
        with Member(bus, producer, work("second")):
            eventually(lambda: {number for _, number in seen} == set(range(300)), within_s=40)
    assert {name for name, _ in seen} == {"first", "second"}
    # a rebalance may repeat what was in hand, no more: two members, two threads each, two messages waiting
    assert len(seen) - 300 <= 8


def test_events_in_the_outbox_are_published_in_order_and_forgotten(
    bus: EventBus, producer: Producer, database: Postgres
) -> None:
    with database.transaction() as connection:
        outbox.put(connection, bus.events_topic, [event(number, key="same") for number in range(1200)])
    assert Relay(database, producer).drain() == 1200
    assert Relay(database, producer).drain() == 0
    found = messages(bus, bus.events_topic, at_least=1200)
    assert [raw.value() for raw in found] == [b'{"number": %d}' % number for number in range(1200)]


def test_an_event_of_a_transaction_that_was_rolled_back_is_never_published(
    bus: EventBus, producer: Producer, database: Postgres
) -> None:
    def fail_after_putting() -> None:
        with database.transaction() as connection:
            outbox.put(connection, bus.events_topic, [event(1)])
            raise RuntimeError("the row could not be written")

    with pytest.raises(RuntimeError, match="row"):
        fail_after_putting()
    assert Relay(database, producer).drain() == 0


def test_a_relay_that_dies_after_publishing_publishes_again_with_the_same_id(
    bus: EventBus, producer: Producer, database: Postgres
) -> None:
    class DyingProducer(Producer):
        def publish(self, topic: str, published: object) -> None:  # type: ignore[override]
            producer.publish(topic, published)  # type: ignore[arg-type]
            raise SystemExit("killed between the broker's confirmation and the commit")

    with database.transaction() as connection:
        outbox.put(connection, bus.events_topic, [event(1)])
    with pytest.raises(SystemExit):
        Relay(database, DyingProducer(bus, client_id="dying")).drain()
    assert Relay(database, producer).drain() == 1
    first, second = messages(bus, bus.events_topic, at_least=2)
    assert dict(first.headers())["ce_id"] == dict(second.headers())["ce_id"]


def test_while_one_relay_publishes_another_stands_back(
    bus: EventBus, producer: Producer, database: Postgres
) -> None:
    with database.transaction() as connection:
        outbox.put(connection, bus.events_topic, [event(1)])
    inside, go_on = threading.Event(), threading.Event()

    class SlowProducer(Producer):
        def publish(self, topic: str, published: object) -> None:  # type: ignore[override]
            inside.set()
            go_on.wait(20)
            producer.publish(topic, published)  # type: ignore[arg-type]

    slow = threading.Thread(target=Relay(database, SlowProducer(bus, client_id="slow")).drain)
    slow.start()
    assert inside.wait(20)
    assert Relay(database, producer).drain() == 0
    go_on.set()
    slow.join()
    assert len(messages(bus, bus.events_topic, at_least=1)) == 1


def test_a_broker_that_is_down_loses_nothing(postgres_server: servers.Postgres, tmp_path: Path) -> None:
    with (
        servers.server_folder() as folder,
        servers.kafka(folder) as (server, plain),
        Postgres(postgres_server.create_database(f"down{uuid4().hex[:8]}"), application="test") as database,
    ):
        bus = own_topics(plain)
        migrate(database)
        producer = Producer(bus, client_id="test", timeout_s=3)
        relay, stop, seen = Relay(database, producer), threading.Event(), []
        relaying = threading.Thread(target=relay.run, args=(stop,))
        with Member(bus, producer, lambda event: seen.append(event.data["number"])):
            producer.publish(bus.tasks_topic, [event(0).to_message()])
            eventually(lambda: seen == [0])
            server.kill()
            with database.transaction() as connection:
                outbox.put(connection, bus.tasks_topic, [event(number) for number in range(1, 6)])
            with pytest.raises(EventBusUnavailableError, match=r"marketlake status"):
                relay.drain()
            relaying.start()
            server.start()
            eventually(lambda: set(seen) == set(range(6)), within_s=60)
            stop.set()
            relaying.join(30)


def test_a_broker_that_goes_while_no_more_is_fetched_is_read_on_once_it_is_back() -> None:
    with servers.server_folder() as folder, servers.kafka(folder) as (server, plain):
        bus = own_topics(plain)
        producer = Producer(bus, client_id="test")
        seen: list[int] = []
        begun, go_on = threading.Semaphore(0), threading.Event()

        def work(happened: Event) -> None:
            begun.release()
            go_on.wait()
            seen.append(happened.data["number"])

        producer.publish(bus.tasks_topic, [event(number).to_message() for number in range(40)])
        with Member(bus, producer, work, concurrency=1):
            assert begun.acquire(timeout=25)
            time.sleep(1)  # until as much lies here as is fetched ahead
            server.kill()
            time.sleep(SESSION_TIMEOUT_MS / 1000 + 3)  # the member is not in the group any more
            go_on.set()
            server.start()
            eventually(lambda: set(seen) == set(range(40)), within_s=60, telling=lambda: sorted(seen))


def test_a_wrong_password_is_told_as_such(bus: EventBus) -> None:
    stranger = bus.model_copy(update={"password": type(bus.password)("wrong-password")})  # type: ignore[operator]
    producer = Producer(stranger, client_id="stranger", timeout_s=3)
    with pytest.raises(EventBusRefusedError, match="credentials") as caught:
        producer.publish(bus.events_topic, [event(1).to_message()])
    assert "wrong-password" not in str(caught.value)
