"""What the collection survives: each process killed in the middle, and no row lost or doubled."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import psycopg
import pytest
from marketlake.pipeline.serving.query import SqlError, query
from marketlake.settings import Collection, Settings

from tests import servers
from tests.deployed import Deployed, deployed
from tests.exchange import Failure, FakeExchange, zip_of
from tests.waiting import eventually

BRONZE, SILVER = "bronze.binance_agg_trades", "silver.agg_trades"
ROWS_PER_FILE = 20_000
DAY_MS = 86_400_000
FIRST_DAY_MS = 1_577_836_800_000  # 2020-01-01
WITHIN_S = 120
"""For a collection to begin and to find the files, on a machine that does much else."""


@dataclass
class World:
    """A platform of its own, an exchange, and handles on every server."""

    platform: Deployed
    exchange: FakeExchange
    servers: dict[str, servers.Server]

    def publish(self, symbol: str, days: int) -> None:
        """Synthetic aggTrades files: as many days, each with rows of its own numbers."""
        for day in range(days):
            name = f"{symbol}-aggTrades-2020-01-{day + 1:02}"
            rows = "".join(
                f"{day * ROWS_PER_FILE + row},100.5,0.{row % 97 + 1},{row},{row},"
                f"{FIRST_DAY_MS + day * DAY_MS + row * 4},true,true\n"
                for row in range(ROWS_PER_FILE)
            )
            self.exchange.publish(
                f"data/spot/daily/aggTrades/{symbol}/{name}.zip", zip_of({f"{name}.csv": rows})
            )

    def begin(self, symbol: str) -> subprocess.Popen[str]:
        """Start collecting a symbol."""
        return self.platform.start(*self.arguments(symbol), "--json")

    def begin_to_read(self, symbol: str) -> subprocess.Popen[str]:
        """Start collecting a symbol, and return in the middle of a file."""
        with self.slow_exchange():
            read = self.another_read(symbol)
            process = self.begin(symbol)
            eventually(read, within_s=WITHIN_S)
        return process

    def arguments(self, symbol: str) -> tuple[str, ...]:
        endpoint = self.exchange.endpoint
        return (
            *("collect", "--venue", "binance", "--market", "spot", "--type", "aggTrades", "--symbol", symbol),
            *("--venue-endpoint", f"{endpoint.endpoint}/{endpoint.bucket}"),
        )

    def another_read(self, symbol: str) -> Callable[[], bool]:
        """Whether a file of the symbol is begun to be read after this."""

        def reads() -> int:
            requests = list(self.exchange.requests)
            return sum(symbol in key and key.endswith(".zip") and method == "GET" for method, key in requests)

        before = reads()
        return lambda: reads() > before

    def assert_complete(self, symbol: str, days: int) -> None:
        """The next collection completes; every row is there once, in bronze and in silver."""
        summary = self.platform.json(*self.arguments(symbol))
        assert summary["complete"]
        assert (summary["found"], summary["failed"]) == (days, 0)
        self.assert_rows(symbol, days)

    def assert_rows(self, symbol: str, days: int) -> None:
        """Every row is there once, in bronze and in silver."""
        for table in (BRONZE, SILVER):
            statement = (
                "select count(*) as n, count(distinct agg_trade_id) as keys, max(agg_trade_id) as last "  # noqa: S608
                f"from {table} where symbol = '{symbol}'"
            )
            (row,) = query(self.platform.settings, statement).to_pylist()
            assert row == {
                "n": days * ROWS_PER_FILE,
                "keys": days * ROWS_PER_FILE,
                "last": days * ROWS_PER_FILE - 1,
            }, table

    def rows(self, symbol: str, table: str) -> int:
        """How many rows of the symbol a table has."""
        statement = f"select count(*) as n from {table} where symbol = '{symbol}'"  # noqa: S608
        try:
            return int(query(self.platform.settings, statement).to_pylist()[0]["n"])
        except SqlError:  # there is no such table yet
            return 0

    def collected(self, symbol: str) -> int:
        """How many files of the symbol the ledger has."""
        with psycopg.connect(self.platform.settings.database.dsn) as connection:
            (count,) = connection.execute(
                "select count(distinct key) from ledger where symbol = %s", [symbol]
            ).fetchone() or (0,)
        return int(count)

    def database_answers(self) -> bool:
        """Whether the database is ready for queries."""
        try:
            with psycopg.connect(self.platform.settings.database.dsn):
                return True
        except psycopg.OperationalError:
            return False

    @contextmanager
    def slow_exchange(self) -> Iterator[None]:
        """A file takes some seconds."""
        self.exchange.bandwidth = 40_000
        try:
            yield
        finally:
            self.exchange.bandwidth = None


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as running:
        folder = running.enter_context(servers.server_folder())
        database = running.enter_context(servers.postgres(folder))
        store, store_settings = running.enter_context(servers.minio(folder))
        broker, bus_settings = running.enter_context(servers.kafka(folder))
        engine, engine_settings = running.enter_context(
            servers.prefect(folder, database.create_database("prefect"))
        )
        settings = Settings(
            environment="test",
            object_store=store_settings,
            event_bus=bus_settings,
            database=database.create_database("marketlake"),
            workflow_engine=engine_settings,
            collection=Collection(group_files=1, concurrency=2),  # so that there is a middle to be killed in
        )
        platform = running.enter_context(deployed(settings, folder, "survival"))
        exchange = running.enter_context(FakeExchange())
        yield World(
            platform,
            exchange,
            {
                "database": database.server,
                "object-store": store,
                "event-bus": broker,
                "workflow-engine": engine,
                "collection-worker": platform.worker,
            },
        )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, out + err


def test_servers_that_are_killed_in_the_middle_of_files_cost_time_only(world: World) -> None:
    world.publish("SERVERS", 12)
    with world.slow_exchange():
        read = world.another_read("SERVERS")
        process = world.begin("SERVERS")
        for name in ("collection-worker", "database", "object-store", "event-bus"):
            eventually(read, within_s=WITHIN_S)
            time.sleep(0.7)  # into the file
            assert process.poll() is None, f"it ended before {name} was killed"
            world.servers[name].kill()
            time.sleep(1)  # long enough for clients to notice
            world.servers[name].start()
            read = world.another_read("SERVERS")
    code, output = outcome(process)
    assert code == 0, output
    world.assert_rows("SERVERS", 12)


def test_a_workflow_engine_that_is_killed_in_the_middle_costs_nothing(world: World) -> None:
    world.publish("ENGINE", 3)
    process = world.begin_to_read("ENGINE")
    world.servers["workflow-engine"].kill()
    try:
        code, output = outcome(process)
    finally:
        world.servers["workflow-engine"].start()
    assert code == 0, output
    world.assert_rows("ENGINE", 3)
    page = json.loads(output)["flow_run"]
    eventually(lambda: _state_of(world, page) == "COMPLETED", within_s=WITHIN_S)


def test_a_command_that_is_killed_leaves_the_collection_to_the_platform(world: World) -> None:
    world.publish("COMMAND", 3)
    process = world.begin_to_read("COMMAND")
    process.kill()
    process.communicate()
    eventually(lambda: world.collected("COMMAND") == 3, within_s=WITHIN_S)
    eventually(lambda: world.rows("COMMAND", SILVER) == 3 * ROWS_PER_FILE, within_s=WITHIN_S)
    world.assert_rows("COMMAND", 3)


def test_ctrl_c_cancels_and_says_what_goes_on(world: World) -> None:
    world.publish("CANCEL", 12)
    with world.slow_exchange():
        read = world.another_read("CANCEL")
        process = world.begin("CANCEL")
        eventually(read, within_s=WITHIN_S)
        process.send_signal(signal.SIGINT)
        code, output = outcome(process)
        assert code == 130, output
        assert "cancelling: files in the workers' hands are still brought in" in output
        time.sleep(5)  # the files in the workers' hands
    assert world.collected("CANCEL") < 12
    world.assert_complete("CANCEL", 12)


def test_bad_files_fail_by_themselves_with_what_to_do(world: World) -> None:
    world.publish("BAD", 6)
    base = "data/spot/daily/aggTrades/BAD/BAD-aggTrades-2020-01-0"
    exchange = world.exchange
    exchange.fail(f"{base}1.zip", Failure.CORRUPT)
    exchange.fail(f"{base}2.zip", Failure.HTML)
    del exchange.objects[f"{base}3.zip.CHECKSUM"]
    exchange.publish(f"{base}4.zip", zip_of({"a.csv": "1,2\n", "b.csv": "1,2\n"}))
    exchange.publish(f"{base}5.zip", zip_of({"BAD.csv": "1,2,3\n4,5,6\n"}))
    summary = world.platform.json(*world.arguments("BAD"), expect=1)
    assert (summary["found"], summary["copied"], summary["failed"]) == (6, 1, 5)
    assert {failure["key"][-5]: failure["code"] for failure in summary["failures"]} == {
        "1": "checksum-mismatch",
        "2": "html-instead-of-zip",
        "3": "sidecar-missing",
        "4": "multiple-members",
        "5": "schema-changed",
    }
    told = world.platform.run(*world.arguments("BAD"), expect=1)
    assert "sidecar-missing" in told
    assert "collect again" in told


def test_collections_go_on_while_the_workflow_engine_is_down_and_are_shown_afterwards(world: World) -> None:
    world.publish("ENGINELESS", 1)
    world.servers["workflow-engine"].kill()
    try:
        summary = world.platform.json(*world.arguments("ENGINELESS"))
        assert (summary["complete"], summary["flow_run"]) == (True, None)
    finally:
        world.servers["workflow-engine"].start()

    def shown() -> str | None:
        with psycopg.connect(world.platform.settings.database.dsn) as connection:
            row = connection.execute(
                "select flow_run from batch where id = %s", [summary["batch_id"]]
            ).fetchone()
        return row[0] if row else None

    eventually(shown, within_s=WITHIN_S)
    eventually(lambda: _state_of(world, f"/{shown()}") == "COMPLETED", within_s=WITHIN_S)


def test_a_database_that_is_down_is_told_at_once(world: World) -> None:
    world.servers["database"].kill()
    try:
        began = time.monotonic()
        told = world.platform.run(*world.arguments("NOWHERE"), expect=3)
        assert time.monotonic() - began < 15
        assert "the database marketlake at" in told
        assert "is not available" in world.platform.run("archive", "list", "--venue", "binance", expect=3)
    finally:
        world.servers["database"].start()
        # It accepts connections before it has recovered, and refuses them then: the next command must not meet that.
        eventually(world.database_answers, within_s=WITHIN_S)


def test_a_worker_that_is_asked_to_end_hands_back_and_ends_in_time(world: World) -> None:
    world.publish("TERM", 3)
    process = world.begin_to_read("TERM")
    worker = world.servers["collection-worker"].process
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    world.servers["collection-worker"].start()
    code, output = outcome(process)
    assert code == 0, output
    world.assert_rows("TERM", 3)


def _state_of(world: World, page: str) -> str | None:
    """The state of a flow run as the workflow engine shows it."""
    engine = world.platform.settings.workflow_engine
    assert engine.auth_string
    user, _, password = engine.auth_string.get_secret_value().partition(":")
    run = page.rpartition("/")[2]
    answer = httpx.get(f"{engine.api_url}/flow_runs/{run}", auth=(user, password), timeout=20)
    return answer.json().get("state_type")
