"""Batches, tasks and workers on real servers, with a faithful exchange at the edge."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import polars as pl
import psycopg
import pytest
from marketlake.archive import ledger
from marketlake.archive.collection import batches
from marketlake.archive.collection.admission import Archive
from marketlake.archive.collection.batches import BatchState, Progress, Run
from marketlake.archive.collection.collector import Collector
from marketlake.archive.collection.orchestrator import (
    CollectionStoppedError,
    Orchestrator,
    RunEndedError,
)
from marketlake.archive.collection.refiner import Refiner
from marketlake.archive.collection.runs import Runs
from marketlake.archive.collection.stores import Stores
from marketlake.archive.collection.tasks import COLLECTION, REFINEMENT, GroupTask
from marketlake.archive.collection.transfers import Transfers
from marketlake.archive.discovery.catalogue import Catalogue
from marketlake.archive.discovery.discover import discover
from marketlake.archive.venues.binance import Binance
from marketlake.domain.archive import ArchiveFile, Selection
from marketlake.errors import MarketlakeError
from marketlake.infrastructure.bus.envelope import Event, Message
from marketlake.infrastructure.bus.outbox import Relay
from marketlake.infrastructure.bus.producer import Producer
from marketlake.infrastructure.postgres import Connection, Postgres, migrate
from marketlake.infrastructure.storage.errors import StorageError
from marketlake.infrastructure.storage.stores import Lake, landing_store
from marketlake.pipeline.batch.silver import refine_many
from marketlake.pipeline.ingest.bronze import Bronze, Ingested, LandedFile, shape_of
from marketlake.pipeline.ingest.committer import Committer
from marketlake.pipeline.ingest.errors import SchemaChangedError
from marketlake.settings import (
    Collection,
    Database,
    EventBus,
    ObjectStore,
    Settings,
    WorkflowEngine,
)
from marketlake.sync.copy import CopiedObject, copy_file
from marketlake.workers import assignments, worker
from marketlake.workers.dispatcher import TaskKind
from marketlake.workers.worker import WorkerProcess

from tests import servers
from tests.exchange import Failure, FakeExchange
from tests.provisioning import messages, own_buckets, own_topics
from tests.unit.marketlake.pipeline.files import LIMITS
from tests.waiting import eventually

SAMPLES = Path(__file__).parents[2] / "samples"
KLINES = Selection(venue="binance", market="spot", data_type="klines")


@dataclass
class Watched(Bronze):
    """Counts what is ingested, and fails when told to."""

    ingested: list[str] = field(default_factory=list)
    fault: Callable[[ArchiveFile], None] = lambda _: None

    def of(self, settings: Settings) -> "Watched":
        """Let it write the lake of these settings."""
        store = settings.object_store
        super().__init__(Lake.of(store), landing_store(store), LIMITS)
        return self

    def ingest(self, landed: Sequence[LandedFile], name: str) -> Ingested:
        failures: dict[str, MarketlakeError] = {}
        for each in landed:
            try:
                self.fault(each.file)
            except MarketlakeError as error:
                if error.transient:
                    raise
                failures[each.file.key] = error
        good = [each for each in landed if each.file.key not in failures]
        done = super().ingest(good, name) if good else Ingested(None, {}, {})
        self.ingested += [each.file.key for each in good]
        return Ingested(done.data_file, done.files, {**done.failures, **failures})


async def land(file: ArchiveFile, *_: object, **__: object) -> CopiedObject:
    """A copy that always succeeds: for tests of what comes after it."""
    data = (SAMPLES / file.key).read_bytes()
    return CopiedObject(
        key=f"{file.venue}/{file.key}",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        etag="e",
        version_id="v1",
        already_there=False,
        data=data,
    )


@dataclass
class Platform:
    """Servers with buckets and topics, and the means to run a collection on them."""

    settings: Settings
    postgres: Postgres
    exchange: FakeExchange

    @contextmanager
    def working(
        self, bronze: Watched, *, copy: Any = copy_file, refine: Any = refine_many, carrying: bool = False
    ) -> Iterator[None]:
        """A worker; one that carries batches on, too, if it is told to."""
        stop = threading.Event()
        store = self.settings.object_store
        lake = Lake.of(store)

        def beside(process: WorkerProcess) -> list[worker.Companion]:
            archive = Archive(self.settings.event_bus)
            committer = Committer(process.postgres, lake, shape_of=shape_of, owner=archive)
            runs = Runs(
                process,
                stores=Stores(landing_store(store), lake.bucket),
                catalogue=Catalogue(lake).record,
            )
            return [committer.run, runs.run] if carrying else [committer.run]

        with Transfers(landing_store(store), self.settings.collection, copy=copy, stop=stop) as transfers:

            def kinds(process: WorkerProcess) -> dict[str, TaskKind]:
                return {
                    COLLECTION: Collector(process, transfers=transfers, lakehouse=bronze.of(self.settings)),
                    REFINEMENT: Refiner(process, refine=partial(refine, lake)),
                }

            thread = threading.Thread(
                target=worker.run, args=(self.settings, kinds), kwargs={"beside": beside, "stop": stop}
            )
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join(40)
                assert not thread.is_alive()

    def claim(self, selection: Selection = KLINES, *, lasting: bool = True) -> Run:
        """Request a batch, and claim it as a worker that seems alive for long."""
        carrier = f"test-{uuid4().hex}"
        with self.postgres.transaction() as connection:
            assignments.beat(connection, carrier, host="test", pid=1, concurrency=1)
            if lasting:
                connection.execute(
                    "update worker set heartbeat_at = now() + interval '1 hour' where id = %s", [carrier]
                )
            batches.request(connection, uuid4(), selection, self.exchange.endpoint, traceparent=None)
            run = batches.claim(connection, carrier)
        assert run is not None
        return run

    def orchestrator(self, run: Run, producer: Producer, *, timeout_s: float = 40) -> Orchestrator:
        return Orchestrator(
            self.postgres,
            Relay(self.postgres, producer),
            self.settings.event_bus,
            run=run,
            endpoint=self.exchange.endpoint,
            group_files=self.settings.collection.group_files,
            timeout_s=timeout_s,
        )

    @contextmanager
    def batch(self, *, timeout_s: float = 40) -> Iterator[tuple[UUID, Orchestrator]]:
        producer = Producer(self.settings.event_bus, client_id="test", timeout_s=5)
        run = self.claim()
        yield run.id, self.orchestrator(run, producer, timeout_s=timeout_s)
        producer.close()

    def progress(self, batch_id: UUID) -> Progress:
        with self.postgres.transaction() as connection:
            seen = batches.progress(connection, batch_id)
        assert seen is not None
        return seen

    def files(self, selection: Selection = KLINES) -> list[ArchiveFile]:
        return list(discover(Binance(), self.exchange.endpoint, selection))

    def collect(self, selection: Selection = KLINES) -> tuple[UUID, Progress]:
        with self.batch() as (batch_id, orchestrator):
            orchestrator.dispatch(self.files(selection), see=lambda _: None)
            return batch_id, orchestrator.wait()

    def rows(self) -> int:
        """How many rows of klines bronze has."""
        lake = Lake.of(self.settings.object_store)
        return pl.read_delta(lake.uri("bronze/binance_klines"), storage_options=lake.options).height

    def failures(self, batch_id: UUID) -> dict[str, str]:
        with self.postgres.transaction() as connection:
            return {failure.key: failure.code for failure in batches.failures(connection, batch_id)}


@pytest.fixture
def platform(kafka: EventBus, minio: ObjectStore, postgres_server: servers.Postgres) -> Iterator[Platform]:
    database = postgres_server.create_database(f"collect{uuid4().hex[:8]}")
    with FakeExchange() as exchange, _platform(kafka, minio, database, exchange) as platform:
        exchange.publish_tree(SAMPLES)
        yield platform


@contextmanager
def _platform(
    kafka: EventBus, minio: ObjectStore, database: Database, exchange: FakeExchange
) -> Iterator[Platform]:
    settings = Settings(
        environment="test",
        object_store=own_buckets(minio),
        event_bus=own_topics(kafka),
        database=database,
        workflow_engine=WorkflowEngine(api_url="http://127.0.0.1:1/api", ui_url="http://127.0.0.1:1"),
        collection=Collection(concurrency=2, attempts=3, requests_per_second=200),
        venues={"binance": exchange.endpoint},
    )
    with Postgres(database, application="test") as postgres:
        migrate(postgres)
        yield Platform(settings, postgres, exchange)


KEY_1 = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01.zip"
KEY_2 = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-02.zip"
KEY_3 = "data/spot/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2026-05-08.zip"
ROWS = 1440 + 1440 + 24


def test_all_files_come_in_and_the_second_time_nothing_is_read(platform: Platform) -> None:
    bronze = Watched()
    with platform.working(bronze):
        _, first = platform.collect()
        reads = [key for _, key in platform.exchange.requests if key.endswith(".zip")]
        _, second = platform.collect()
    assert (first.found, first.copied, first.verified, first.skipped, first.failed) == (3, 3, 3, 0, 0)
    assert (first.rows, first.quarantined) == (ROWS, 0)
    assert sorted(bronze.ingested) == [KEY_3, KEY_1, KEY_2]
    assert (second.found, second.copied, second.verified, second.skipped) == (3, 0, 0, 3)
    assert [key for _, key in platform.exchange.requests if key.endswith(".zip")] == reads


def test_what_came_in_is_told_on_the_event_bus_once_per_group(platform: Platform) -> None:
    with platform.working(Watched()):
        platform.collect()
        found = messages(platform.settings.event_bus, platform.settings.event_bus.events_topic, at_least=1)
    events = [
        Event.from_message(Message(key=None, value=raw.value(), headers=tuple(raw.headers())))
        for raw in found
    ]
    (event,) = events
    assert (event.type, event.subject) == ("marketlake.files.collected", "binance/spot/klines")
    assert {file["key"]: file["rows"] for file in event.data["files"]} == {
        KEY_3: 24,
        KEY_1: 1440,
        KEY_2: 1440,
    }


def test_a_bad_file_fails_by_itself_with_a_code_and_lies_among_the_dead_letters(platform: Platform) -> None:
    exchange = platform.exchange
    exchange.fail(KEY_2, Failure.CORRUPT)
    del exchange.objects[f"{KEY_3}.CHECKSUM"]
    with platform.working(Watched()):
        batch_id, ended = platform.collect()
        letters = messages(
            platform.settings.event_bus, platform.settings.event_bus.dead_letters_topic, at_least=1
        )
    assert (ended.copied, ended.failed, ended.open) == (1, 2, 0)
    assert platform.failures(batch_id) == {KEY_2: "checksum-mismatch", KEY_3: "sidecar-missing"}
    (letter,) = letters
    again = GroupTask.model_validate(json.loads(letter.value())["task"])
    assert [file.key for file in again.files] == [KEY_3, KEY_2], "what it takes to ask for them again"


def test_a_failed_file_comes_in_with_the_next_collection_once_it_is_mended(platform: Platform) -> None:
    platform.exchange.fail(KEY_2, Failure.CORRUPT)
    bronze = Watched()
    with platform.working(bronze):
        platform.collect()
        platform.exchange.fail(KEY_2, Failure.CORRUPT, times=0)
        _, ended = platform.collect()
    assert (ended.copied, ended.skipped, ended.failed) == (1, 2, 0)
    assert sorted(bronze.ingested) == [KEY_3, KEY_1, KEY_2]


def test_a_schema_that_changed_is_permanent_and_not_tried_again(platform: Platform) -> None:
    attempts: list[str] = []

    def fault(file: ArchiveFile) -> None:
        if file.key == KEY_1:
            attempts.append(file.key)
            raise SchemaChangedError("13 columns came, 12 are declared: declare the new one")

    with platform.working(Watched(fault=fault), copy=land):
        batch_id, ended = platform.collect()
    assert (ended.copied, ended.failed) == (2, 1)
    assert len(attempts) == 1
    with platform.postgres.transaction() as connection:
        (failure,) = batches.failures(connection, batch_id)
    assert (failure.code, failure.attempts) == ("schema-changed", 1)
    assert failure.message == "13 columns came, 12 are declared: declare the new one"


UNSTORABLE = "13 columns came: 'a\0b\ud800c'"


@pytest.mark.parametrize("error", [SchemaChangedError(UNSTORABLE), ZeroDivisionError(UNSTORABLE)])
def test_a_failure_is_recorded_whatever_bytes_its_message_quotes(
    platform: Platform, error: Exception
) -> None:
    def fault(file: ArchiveFile) -> None:
        if file.key == KEY_1:
            raise error

    with platform.working(Watched(fault=fault), copy=land):
        batch_id, ended = platform.collect()
        bus = platform.settings.event_bus
        (letter,) = messages(bus, bus.dead_letters_topic, at_least=1)
    assert (ended.verified, ended.failed) == (2, 1)
    with platform.postgres.transaction() as connection:
        (failure,) = batches.failures(connection, batch_id)
    assert failure.message == "13 columns came: 'a\ufffdb\ufffdc'"
    assert "a\ufffdb\ufffdc" in json.loads(letter.value())["files"][0]["message"]


def test_a_csv_of_nul_bytes_ends_its_task_and_the_batch(platform: Platform) -> None:
    platform.exchange.publish_csv(KEY_1, b"1577836800000,\0,\0\n" * 3)
    with platform.working(Watched()):
        batch_id, ended = platform.collect()
    assert (ended.copied, ended.failed) == (2, 1)
    assert platform.failures(batch_id) == {KEY_1: "schema-changed"}


def test_a_group_that_cannot_be_recorded_still_ends_with_a_reason(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise ValueError("a defect: unrecordable")

    give_up = assignments.give_up

    def hesitating(connection: Connection, task_id: UUID, code: str, message: str) -> bool:
        if "unrecordable" in message:
            raise psycopg.DataError("a value that the database refuses")
        return give_up(connection, task_id, code, message)

    monkeypatch.setattr(assignments, "end", refusing)
    monkeypatch.setattr(assignments, "give_up", hesitating)
    with platform.working(Watched(), copy=land):
        batch_id, ended = platform.collect()
        bus = platform.settings.event_bus
        assert len(messages(bus, bus.dead_letters_topic, at_least=1)) == 1
    assert (ended.verified, ended.failed) == (0, 3)
    assert platform.failures(batch_id) == dict.fromkeys((KEY_1, KEY_2, KEY_3), "unexpected")
    with platform.postgres.transaction() as connection:
        messages_of = {failure.message for failure in batches.failures(connection, batch_id)}
    assert messages_of == {"ValueError; the worker's log has its message"}


def test_a_task_that_cannot_be_read_ends_with_its_dead_letter(platform: Platform) -> None:
    bus = platform.settings.event_bus
    with platform.batch() as (batch_id, orchestrator):
        task = GroupTask.of(platform.files(), platform.exchange.endpoint, batch_id)
        with platform.postgres.transaction() as connection:
            batches.add(connection, batch_id, [task], topic=bus.tasks_topic, traceparent=None)
            connection.execute("update task set payload = payload - 'endpoint'")
        with platform.working(Watched()):
            ended = orchestrator.wait()
    assert (ended.failed, ended.open) == (3, 0)
    with platform.postgres.transaction() as connection:
        reasons = {failure.message for failure in batches.failures(connection, batch_id)}
    assert all("endpoint" in reason for reason in reasons)


def test_a_task_of_a_kind_of_another_release_ends_with_its_dead_letter(platform: Platform) -> None:
    with platform.batch() as (batch_id, orchestrator):
        orchestrator.dispatch(platform.files(), see=len)
        with platform.postgres.transaction() as connection:
            connection.execute("update task set kind = 'brewing' where batch_id = %s", [batch_id])
        with platform.working(Watched()):
            orchestrator.wait()
    assert set(platform.failures(batch_id).values()) == {"unknown-task"}


def test_an_error_that_passes_is_tried_again_and_leaves_no_mark(platform: Platform) -> None:
    attempts: list[str] = []

    def fault(file: ArchiveFile) -> None:
        attempts.append(file.key)
        if len(attempts) < 3:
            raise StorageError("the object store failed")

    with platform.working(Watched(fault=fault), copy=land):
        batch_id, ended = platform.collect()
    assert (ended.verified, ended.failed) == (3, 0)
    assert attempts == [KEY_3, KEY_3, KEY_3, KEY_1, KEY_2], "the group is tried again"
    assert platform.failures(batch_id) == {}


def test_an_error_that_nobody_foresaw_fails_its_file_and_none_beside(platform: Platform) -> None:
    def fault(file: ArchiveFile) -> None:
        if file.key == KEY_1:
            raise ZeroDivisionError("a defect")

    with platform.working(Watched(fault=fault), copy=land):
        batch_id, ended = platform.collect()
    assert (ended.verified, ended.failed) == (2, 1)
    assert platform.failures(batch_id) == {KEY_1: "unexpected"}


def test_a_reissued_file_is_a_new_version_with_a_recorded_conflict(platform: Platform) -> None:
    bronze = Watched()
    with platform.working(bronze):
        platform.collect()
        platform.exchange.publish(KEY_1, (SAMPLES / KEY_2).read_bytes())
        _, ended = platform.collect()
    assert (ended.copied, ended.skipped) == (1, 2)
    assert bronze.ingested.count(KEY_1) == 2
    with platform.postgres.transaction() as connection:
        (conflict,) = ledger.conflicts(connection, "binance")
        entry = ledger.current(connection, "binance", [KEY_1])[KEY_1]
    assert (conflict.key, conflict.former_version, conflict.version) == (KEY_1, 1, 2)
    assert (entry.version, entry.sha256) == (2, conflict.sha256)


def test_a_file_that_was_only_touched_is_proven_but_not_ingested_again(platform: Platform) -> None:
    bronze = Watched()
    with platform.working(bronze, copy=land):
        platform.collect()
        with platform.postgres.transaction() as connection:
            connection.execute("update ledger set etag = 'as it was listed before' where key = %s", [KEY_1])
        _, ended = platform.collect()
        _, third = platform.collect()
    assert (ended.copied, ended.verified, ended.skipped) == (0, 1, 2)
    assert third.skipped == 3
    assert bronze.ingested.count(KEY_1) == 1


def test_two_collections_of_the_same_files_at_once_bring_each_in_once(platform: Platform) -> None:
    bronze, other = (Watched(fault=lambda _: time.sleep(0.3)) for _ in range(2))
    results: list[Progress] = []
    with platform.working(bronze, copy=land), platform.working(other, copy=land):
        threads = [threading.Thread(target=lambda: results.append(platform.collect()[1])) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(result.verified for result in results) == 3
    assert all(result.verified + result.skipped == 3 and not result.failed for result in results)
    assert platform.rows() == ROWS


def test_a_task_that_is_delivered_again_is_not_done_again(platform: Platform) -> None:
    bronze = Watched()
    with platform.working(bronze):
        batch_id, _ = platform.collect()
        with platform.postgres.transaction() as connection:
            connection.execute("update task set state = 'queued'")
            again = assignments.redispatch_queued(
                connection,
                batch_id,
                topic=platform.settings.event_bus.tasks_topic,
                traceparent=None,
                older_than_s=0,
            )
            connection.execute("update task set state = 'done'")
        assert again == 1
        platform.collect()
    assert sorted(bronze.ingested) == [KEY_3, KEY_1, KEY_2]


def test_a_task_of_a_worker_that_went_silent_is_asked_for_again(platform: Platform) -> None:
    bronze = Watched()
    with platform.batch() as (batch_id, orchestrator):
        orchestrator.dispatch(platform.files(), see=lambda _: None)
        # a worker took the message and its process was lost together with the message
        for raw in messages(platform.settings.event_bus, platform.settings.event_bus.tasks_topic, at_least=1):
            assert raw.value()
        with platform.postgres.transaction() as connection:
            connection.execute(
                "update task set state = 'running', worker = 'gone' where batch_id = %s", [batch_id]
            )
            assert (
                assignments.redispatch_lapsed(
                    connection,
                    batch_id,
                    topic=platform.settings.event_bus.tasks_topic,
                    traceparent=None,
                )
                == 1
            )
        with platform.working(bronze):
            ended = orchestrator.wait()
    assert ended.verified == 3
    assert sorted(bronze.ingested) == [KEY_3, KEY_1, KEY_2]


def test_tasks_that_the_event_bus_lost_are_asked_for_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketlake.archive.collection.orchestrator._LOST_AFTER_S", 2.0)
    with platform.batch() as (_, orchestrator):
        orchestrator.dispatch(platform.files(), see=lambda _: None)
        renewed = own_topics(platform.settings.event_bus)
        emptied = replace(platform, settings=platform.settings.model_copy(update={"event_bus": renewed}))
        monkeypatch.setattr(orchestrator, "_bus", renewed)
        with emptied.working(Watched()):
            assert orchestrator.wait().verified == 3


def test_a_batch_that_waits_behind_another_one_sends_nothing_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketlake.archive.collection.orchestrator._LOST_AFTER_S", 0.5)
    monkeypatch.setattr("marketlake.archive.collection.orchestrator._LOOK_AFTER_S", 0.2)
    monkeypatch.setattr(worker, "TASKS_AT_ONCE", 1)
    began, go_on = threading.Event(), threading.Event()

    def fault(_: ArchiveFile) -> None:
        began.set()
        go_on.wait(30)

    bus = platform.settings.event_bus
    with platform.batch() as (_, first), platform.batch() as (behind, second):
        first.dispatch(platform.files(), see=lambda _: None)
        with platform.working(Watched(fault=fault)), ThreadPoolExecutor() as pool:
            assert began.wait(20)
            second.dispatch(platform.files(), see=lambda _: None)
            waiting = [pool.submit(first.wait), pool.submit(second.wait)]
            with pytest.raises(TimeoutError):  # it looks for lost tasks a dozen times meanwhile
                waiting[1].result(timeout=4)
            assert platform.progress(behind).queued == 3
            assert len(messages(bus, bus.tasks_topic, at_least=2)) == 2
            go_on.set()
            assert [each.result(timeout=60).open_tasks for each in waiting] == [0, 0]


def test_a_cancelled_batch_drops_what_was_not_begun(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Collection(group_files=1)
    platform.settings = platform.settings.model_copy(update={"collection": alone})
    monkeypatch.setattr(worker, "TASKS_AT_ONCE", 1)
    began, go_on = threading.Event(), threading.Event()

    def fault(_: ArchiveFile) -> None:
        began.set()
        go_on.wait(20)

    bronze = Watched(fault=fault)
    with platform.batch() as (batch_id, orchestrator), platform.working(bronze):
        orchestrator.dispatch(platform.files(), see=lambda _: None)
        assert began.wait(20)
        with platform.postgres.transaction() as connection:
            assert batches.cancel(connection, batch_id)
            assert not batches.cancel(connection, batch_id)
        go_on.set()
        with pytest.raises(RunEndedError):
            orchestrator.wait()
        eventually(lambda: platform.progress(batch_id).verified == 1)
        time.sleep(1)  # for others to be begun, if they were not dropped
        seen = platform.progress(batch_id)
    assert len(bronze.ingested) == 1
    assert (seen.state, seen.verified, seen.cancelled) == (BatchState.CANCELLED, 1, 2)


def test_a_poisoned_task_is_put_aside_and_the_others_are_done(platform: Platform) -> None:
    bus = platform.settings.event_bus
    producer = Producer(bus, client_id="poisoner")
    wrong_kind = Event(source="/x", type="something.else", data={})
    wrong_data = Event(source="/x", type="marketlake.task.requested", data={"file": 1})
    producer.publish(
        bus.tasks_topic,
        [Message(key=None, value=b"garbage"), wrong_kind.to_message(), wrong_data.to_message()],
    )
    with platform.working(Watched()):
        _, ended = platform.collect()
        letters = messages(bus, bus.dead_letters_topic, at_least=3)
    assert ended.verified == 3
    assert {letter.value() for letter in letters} == {b"garbage", b"{}", b'{"file": 1}'}


def test_a_worker_that_ends_while_it_waits_hands_its_task_back(platform: Platform) -> None:
    failing = threading.Event()

    def fault(_: ArchiveFile) -> None:
        failing.set()
        raise StorageError("away")

    patient = platform.settings.model_copy(update={"collection": Collection(concurrency=2, attempts=50)})
    first = Watched(fault=fault)
    second = Watched()
    with platform.batch() as (_, orchestrator):
        with replace(platform, settings=patient).working(first, copy=land):
            orchestrator.dispatch(platform.files(), see=lambda _: None)
            assert failing.wait(20)
        assert first.ingested == []
        with platform.working(second, copy=land):
            assert orchestrator.wait().verified == 3


def test_the_worker_list_shows_who_is_alive(platform: Platform) -> None:
    def live() -> int:
        with platform.postgres.transaction() as connection:
            row = connection.execute(
                "select count(*) as live from worker where heartbeat_at > now() - make_interval(secs => %s)",
                [assignments.LAPSED_AFTER_S],
            ).fetchone()
        return int(row["live"]) if row else 0

    with platform.working(Watched()):
        eventually(lambda: live() == 1)
    assert live() == 0


def test_a_broker_that_is_down_ends_the_wait_with_what_to_do_and_nothing_is_lost(
    minio: ObjectStore, postgres_server: servers.Postgres
) -> None:
    database = postgres_server.create_database(f"down{uuid4().hex[:8]}")
    with (
        servers.server_folder() as folder,
        servers.kafka(folder) as (broker, bus),
        FakeExchange() as exchange,
        _platform(bus, minio, database, exchange) as platform,
        platform.batch(timeout_s=3) as (_, orchestrator),
    ):
        exchange.publish_tree(SAMPLES)
        files = platform.files()
        broker.kill()
        orchestrator.dispatch(files, see=lambda _: None)
        with pytest.raises(CollectionStoppedError, match="wait in the outbox") as caught:
            orchestrator.wait()
        assert caught.value.code == "platform-unreachable"
        broker.start()
        bronze = Watched()
        with platform.working(bronze):
            assert orchestrator.wait().verified == 3
        assert sorted(bronze.ingested) == [KEY_3, KEY_1, KEY_2]


def test_a_database_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    kafka: EventBus, minio: ObjectStore
) -> None:
    with (
        servers.server_folder() as folder,
        servers.postgres(folder) as server,
        FakeExchange() as exchange,
        _platform(kafka, minio, server.create_database("collect"), exchange) as platform,
        platform.batch() as (_, orchestrator),
    ):
        exchange.publish_tree(SAMPLES)
        inside = threading.Event()
        killed = threading.Event()

        def fault(_: ArchiveFile) -> None:
            inside.set()
            killed.wait(30)

        with platform.working(Watched(fault=fault)):
            orchestrator.dispatch(platform.files(), see=lambda _: None)
            assert inside.wait(30)
            server.server.kill()
            killed.set()
            server.server.start()
            ended = orchestrator.wait()
        assert (ended.verified, ended.failed, ended.rows) == (3, 0, ROWS)
        with platform.postgres.transaction() as connection:
            row = connection.execute("select count(*) as entries from ledger").fetchone()
        assert row == {"entries": 3}


def test_a_batch_that_is_cancelled_during_planning_stops_there(platform: Platform) -> None:
    with platform.batch() as (batch_id, orchestrator):

        def cancel(_: list[ArchiveFile]) -> None:
            with platform.postgres.transaction() as connection:
                batches.cancel(connection, batch_id)

        with pytest.raises(RunEndedError):
            orchestrator.dispatch(platform.files(), see=cancel)
        bronze = Watched()
        with platform.working(bronze):
            _, ended = platform.collect()
        assert ended.verified == 3
        with platform.postgres.transaction() as connection:
            seen = batches.progress(connection, batch_id)
        with pytest.raises(RunEndedError):
            orchestrator.enter(BatchState.DONE)
        assert seen is not None
        assert (seen.state, seen.found, seen.open, seen.verified) == (BatchState.CANCELLED, 0, 0, 0)
        assert sorted(bronze.ingested) == [KEY_3, KEY_1, KEY_2]


def test_tasks_of_a_database_that_was_emptied_are_dropped(platform: Platform) -> None:
    with platform.batch() as (batch_id, orchestrator):
        orchestrator.dispatch(platform.files(), see=lambda _: None)
        with platform.postgres.transaction() as connection:
            connection.execute("delete from batch where id = %s", [batch_id])
        with pytest.raises(CollectionStoppedError, match="was emptied"):
            orchestrator.wait()
    bronze = Watched()
    with platform.working(bronze):
        _, ended = platform.collect()
    assert ended.verified == 3
    assert len(bronze.ingested) == 3
    bus = platform.settings.event_bus
    assert messages(bus, bus.dead_letters_topic) == []


def test_a_worker_waits_for_a_database_that_is_down_and_can_be_stopped_meanwhile(platform: Platform) -> None:
    down = platform.settings.database.model_copy(update={"port": 1})
    waiting = replace(platform, settings=platform.settings.model_copy(update={"database": down}))
    with waiting.working(Watched()):
        time.sleep(2)


def test_a_database_that_is_away_is_borne_for_a_while_only(platform: Platform) -> None:
    run = platform.claim()
    with closing(Producer(platform.settings.event_bus, client_id="test")) as producer:
        down = platform.settings.database.model_copy(update={"port": 1})
        with Postgres(down, application="test") as away:
            orchestrator = replace(platform, postgres=away).orchestrator(run, producer, timeout_s=1)
            with pytest.raises(
                CollectionStoppedError, match=r"after 1 s of waiting: the database .* is not available"
            ):
                orchestrator.wait()


def test_a_reissue_leaves_the_other_files_of_its_group_alone(platform: Platform) -> None:
    with platform.working(Watched()):
        platform.collect()
        platform.exchange.publish_csv(KEY_1, kline_of(1_577_836_800_000))
        _, ended = platform.collect()
    assert (ended.copied, ended.skipped, ended.rows) == (1, 2, 1)
    assert platform.rows() == 1 + 1440 + 24
    with platform.postgres.transaction() as connection:
        states = connection.execute(
            "select state, count(*) as files from data_file group by state order by state"
        ).fetchall()
        entries = ledger.current(connection, "binance", [KEY_1, KEY_2, KEY_3])
    assert {row["state"]: row["files"] for row in states} == {"live": 2, "replaced": 1}
    assert entries[KEY_2].data_file_id == entries[KEY_3].data_file_id != entries[KEY_1].data_file_id


def kline_of(open_time: int) -> bytes:
    return f"{open_time},1,2,1,2,10,{open_time + 59_999},20,5,1,2,0\n".encode()
