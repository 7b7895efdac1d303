"""Seeded kills, pauses and restarts under load, with re-issues in the middle: no row is lost, doubled or stale."""

import itertools
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import polars as pl
import pytest
from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import BatchState, Progress
from marketlake.domain.archive import Selection
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres, migrate
from marketlake.infrastructure.storage.stores import Lake
from marketlake.settings import Collection, Settings, WorkflowEngine
from marketlake.workers.assignments import LAPSED_AFTER_S

from components import worker_pool
from tests import servers
from tests.deployed import Deployed, deployed
from tests.exchange import Failure, FakeExchange
from tests.waiting import eventually

SELECTION = Selection(venue="binance", market="spot", data_type="klines", interval="1h")
SYMBOLS = tuple(f"KILL{number}USDT" for number in range(6))
FIRST_DAY, HOURS = date(2024, 1, 1), 24
MOST_DAYS = 120
"""Of each symbol; after that only re-issues are published."""
REISSUES = 3
"""In each round of the load."""
OPEN_BATCHES = 3
"""From which on the load waits."""
CHECKED_EVERY = 20
"""Kills after which everything is counted."""
SETTLED_WITHIN_S = 240
RESUMED_WITHIN_S = 30
"""For what takes 10 s on a quiet machine: a lease lapses, and the task is asked for again."""


@dataclass(frozen=True, slots=True)
class Blow:
    """What befalls a process."""

    victim: str
    way: str
    """`kill`: at once, and started again. `pause`: it stands still, and goes on. `restart`: ended in good order."""
    seconds: float
    """How long it is away, at least."""

    def __str__(self) -> str:
        return f"{self.way} {self.victim} for {self.seconds:.1f} s"


WAYS = (
    ("first worker", "kill"),
    ("second worker", "kill"),
    ("first worker", "pause"),
    ("second worker", "pause"),
    ("first worker", "restart"),
    ("database", "kill"),
    ("database", "restart"),
    ("database", "pause"),
    ("event-bus", "kill"),
    ("event-bus", "pause"),
    ("object-store", "kill"),
    ("object-store", "pause"),
)


def blows(seed: int, count: int) -> Iterator[Blow]:
    """Draw blows; all ways are in each dozen, in an order of its own."""
    drawn = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    order: list[tuple[str, str]] = []
    for _ in range(count):
        if not order:
            order = drawn.sample(WAYS, len(WAYS))
        victim, way = order.pop()
        # A pause outlasts the lease of who stands still, and of everyone if the database does.
        seconds = LAPSED_AFTER_S + drawn.uniform(1, 3) if way == "pause" else drawn.uniform(0, 2)
        yield Blow(victim, way, seconds)


@dataclass
class Load:
    """Publishes files and re-issues, and has them collected, until it is told to stop."""

    exchange: FakeExchange
    postgres: Postgres
    drawn: random.Random
    versions: dict[str, int] = field(default_factory=dict)
    """The newest of each file, by key."""
    open: list[UUID] = field(default_factory=list)
    failure: Exception | None = None
    _days: int = 0

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self.publish()
                self.request()
                while len(self.open) >= OPEN_BATCHES and not stop.wait(0.2):
                    self.open = [batch for batch in self.open if not self.has_ended(batch)]
                stop.wait(0.3)
        except Exception as error:  # noqa: BLE001 - told by the test
            self.failure = error

    def publish(self) -> None:
        """A day of each symbol, and a few former files anew."""
        again = self.drawn.sample(sorted(self.versions), min(REISSUES, len(self.versions)))
        for key in again:
            self.put(key, self.versions[key] + 1)
        if self._days < MOST_DAYS:
            day = FIRST_DAY + timedelta(days=self._days)
            self._days += 1
            for symbol in SYMBOLS:
                self.put(f"data/spot/daily/klines/{symbol}/1h/{symbol}-1h-{day.isoformat()}.zip", 1)

    def put(self, key: str, version: int) -> None:
        """Publish a version of a file."""
        day = date.fromisoformat(key[-14:-4])
        midnight = (day - date(1970, 1, 1)).days * 86_400_000
        rows = (
            f"{begin},1,{version},1,{version},1,{begin + 3_599_999},1,1,1,1,0\n"
            for begin in range(midnight, midnight + HOURS * 3_600_000, 3_600_000)
        )
        self.versions[key] = version
        self.exchange.publish_csv(key, "".join(rows))

    def request(self) -> UUID | None:
        """Have everything collected; None if the database is away."""
        batch = uuid4()
        try:
            with self.postgres.transaction() as connection:
                batches.request(connection, batch, SELECTION, self.exchange.endpoint, traceparent=None)
        except DatabaseUnavailableError:
            return None
        self.open.append(batch)
        return batch

    def progress(self, batch: UUID) -> Progress | None:
        try:
            with self.postgres.transaction() as connection:
                return batches.progress(connection, batch)
        except DatabaseUnavailableError:
            return None

    def has_ended(self, batch: UUID) -> bool:
        """Whether it has; one that was never written has, too."""
        try:
            with self.postgres.transaction() as connection:
                seen = batches.progress(connection, batch)
        except DatabaseUnavailableError:
            return False
        return seen is None or (seen.state.ended and not seen.open_tasks)


@dataclass
class World:
    """A platform of two workers."""

    platform: Deployed
    load: Load
    servers: dict[str, servers.Server]

    def strike(self, blow: Blow) -> None:
        server = self.servers[blow.victim]
        if blow.way == "pause":
            family = server.family()
            for process in family:
                process.send_signal(signal.SIGSTOP)
            time.sleep(blow.seconds)
            for process in reversed(family):
                process.send_signal(signal.SIGCONT)
            return
        server.kill() if blow.way == "kill" else server.stop()
        time.sleep(blow.seconds)
        server.start()

    def holders(self) -> dict[UUID, str]:
        """The tasks that are worked on or done, with the last worker's id."""
        with self.load.postgres.transaction() as connection:
            rows = connection.execute("select id, worker from task where worker is not null").fetchall()
        return {row["id"]: row["worker"] for row in rows}

    def server_of(self, worker: str) -> servers.Server:
        """The server whose process has that id."""
        with self.load.postgres.transaction() as connection:
            row = connection.execute("select pid from worker where id = %s", [worker]).fetchone() or {}
        workers = [server for name, server in self.servers.items() if name.endswith("worker")]
        (found,) = [
            server for server in workers if row.get("pid") in {process.pid for process in server.family()}
        ]
        return found

    def settle(self) -> None:
        """Have all collected that is published."""

        def settled() -> bool:
            batch = self.load.request()
            if batch is None:
                return False
            eventually(
                lambda: self.load.has_ended(batch),
                within_s=SETTLED_WITHIN_S,
                telling=lambda: self.load.progress(batch),
            )
            seen = self.load.progress(batch)
            return seen is not None and seen.state is BatchState.DONE and seen.complete

        eventually(settled, within_s=SETTLED_WITHIN_S)
        self.load.open.clear()

    def assert_each_row_is_there_once_in_its_newest_version(self) -> None:
        wanted = self.load.versions
        bronze = self._rows("bronze/binance_klines")
        files = bronze.group_by("source_key").agg(
            pl.len(),
            pl.col("row_number").n_unique().alias("rows"),
            pl.col("close").unique().alias("versions"),
        )
        found = {
            key: (count, rows, [int(each) for each in versions])
            for key, count, rows, versions in files.iter_rows()
        }
        assert found == {key: (HOURS, HOURS, [version]) for key, version in wanted.items()}
        silver = self._rows("silver/candles").select(
            "symbol", "open_time", pl.col("close").cast(pl.Int64).alias("version")
        )
        expected = {
            (symbol, day, hour): version
            for key, version in wanted.items()
            for symbol, day in [(key.split("/")[4], date.fromisoformat(key[-14:-4]))]
            for hour in range(HOURS)
        }
        assert silver.height == len(expected)
        assert {
            (symbol, at.date(), at.hour): version for symbol, at, version in silver.iter_rows()
        } == expected

    def _rows(self, table: str) -> pl.DataFrame:
        lake = Lake.of(self.platform.settings.object_store)
        return pl.read_delta(lake.uri(table), storage_options=lake.options)


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as running:
        folder = running.enter_context(servers.server_folder())
        database = running.enter_context(servers.postgres(folder))
        store, store_settings = running.enter_context(servers.minio(folder))
        broker, bus = running.enter_context(servers.kafka(folder))
        settings = Settings(
            environment="test",
            object_store=store_settings,
            event_bus=bus,
            database=database.create_database("marketlake"),
            workflow_engine=WorkflowEngine(api_url="http://127.0.0.1:1/api", ui_url="http://127.0.0.1:1"),
            collection=Collection(group_files=4, concurrency=8),
        )
        platform = running.enter_context(deployed(settings, folder, "kills"))
        beside = _second(folder)
        second = running.enter_context(
            servers.run(
                worker_pool.collection_worker_service(replicas=1),
                beside,
                inputs={"environment": settings.environment},
                secrets={"settings": platform.settings.to_json()},
            )
        )
        exchange = running.enter_context(FakeExchange())
        postgres = running.enter_context(Postgres(settings.database, application="load"))
        migrate(postgres)
        seed = request.config.getoption("--chaos-seed")
        yield World(
            platform,
            Load(exchange, postgres, random.Random(seed)),  # noqa: S311 - to be repeated, not to be secret
            {
                "first worker": platform.worker,
                "second worker": second,
                "database": database.server,
                "object-store": store,
                "event-bus": broker,
            },
        )


def _second(folder: Path) -> Path:
    beside = folder / "second"
    beside.mkdir(mode=0o755)
    return beside


def test_others_take_on_the_work_of_a_worker_that_is_killed_soon(world: World) -> None:
    exchange = world.load.exchange
    key = f"data/spot/daily/klines/{SYMBOLS[0]}/1h/{SYMBOLS[0]}-1h-2023-01-01.zip"
    world.load.put(key, 1)
    exchange.fail(key, Failure.STALL, times=1)
    world.load.request()
    eventually(lambda: exchange.gets(key), within_s=SETTLED_WITHIN_S)
    eventually(world.holders, within_s=SETTLED_WITHIN_S)
    ((task, worker),) = world.holders().items()
    victim = world.server_of(worker)
    victim.kill()
    began = time.monotonic()
    eventually(lambda: world.holders().get(task, worker) != worker, within_s=60)
    took = time.monotonic() - began
    victim.start()
    print(f"{worker} was killed, and its work taken on after {took:.1f} s")
    world.settle()
    world.assert_each_row_is_there_once_in_its_newest_version()
    assert took <= RESUMED_WITHIN_S


@pytest.mark.timeout(4000)
def test_no_row_is_lost_doubled_or_stale_whatever_is_killed(
    world: World, request: pytest.FixtureRequest
) -> None:
    option = request.config.getoption
    drawn = blows(option("--chaos-seed"), option("--chaos-kills"))
    done = 0
    while some := list(itertools.islice(drawn, CHECKED_EVERY)):
        stop = threading.Event()
        load = threading.Thread(target=world.load.run, args=(stop,), daemon=True)
        load.start()
        try:
            for blow in some:
                time.sleep(world.load.drawn.uniform(0.5, 2))  # into whatever the load has begun
                print(f"{done + 1}: {blow}")
                world.strike(blow)
                done += 1
        finally:
            stop.set()
            load.join(60)
        assert world.load.failure is None
        world.settle()
        world.assert_each_row_is_there_once_in_its_newest_version()
        print(f"{done} kills, {len(world.load.versions)} files: each row is there once")
