"""The lake on a real object store, written by several processes at once and by ones that are killed."""

import json
import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import obstore
import polars as pl
import pytest
from deltalake import DeltaTable
from marketlake.archive.discovery.catalogue import Catalogue
from marketlake.infrastructure.storage.errors import StorageError
from marketlake.infrastructure.storage.stores import Lake, landing_store
from marketlake.pipeline.batch.silver import refine
from marketlake.pipeline.ingest import bronze
from marketlake.pipeline.ingest.errors import MultipleMembersError
from marketlake.pipeline.ingest.zip_member import InflationLimits
from marketlake.pipeline.serving.query import SqlError, query
from marketlake.settings import (
    Database,
    EventBus,
    ObjectStore,
    Settings,
    WorkflowEngine,
)
from marketlake.sync.copy import CopiedObject

from tests.exchange import zip_of
from tests.provisioning import own_buckets
from tests.unit.marketlake.pipeline.files import (
    FUNDING,
    KLINES,
    LIMITS,
    SAMPLES,
    TRADES,
    archive_file,
    kline,
    lines,
    zipped,
)

ingest = partial(bronze.ingest, limits=LIMITS)
SPAWN = multiprocessing.get_context("spawn")
JANUARY_2 = KLINES.replace("01-01", "01-02")


@pytest.fixture
def store(minio):
    return own_buckets(minio)


def settings(store: ObjectStore) -> Settings:
    """Of a platform of which only the object store runs."""
    return Settings(
        environment="test",
        object_store=store,
        event_bus=EventBus(bootstrap_servers="127.0.0.1:9"),
        database=Database(host="127.0.0.1", port=9, user="nobody", password="none"),
        workflow_engine=WorkflowEngine(api_url="http://127.0.0.1:9/api", ui_url="http://127.0.0.1:9"),
    )


REPETITIVE = InflationLimits(size=2**30, ratio=1032)
"""For bodies of one row many times, which are as small as a zip bomb's."""


def land(store: ObjectStore, key: str, body: bytes | None = None) -> CopiedObject:
    body = (SAMPLES / key).read_bytes() if body is None else body
    landed = f"binance/{key.lstrip('/')}"
    obstore.put(landing_store(store), landed, body)
    return CopiedObject(key=landed, size=len(body), sha256="", etag="", version_id=None, already_there=False)


def table(store: ObjectStore, name: str) -> pl.DataFrame:
    lake = Lake.of(store)
    return pl.read_delta(lake.uri(name), storage_options=lake.options)


def revealed(store: ObjectStore) -> str:
    secret = store.secret_access_key.get_secret_value()
    return json.dumps({**json.loads(store.model_dump_json()), "secret_access_key": secret})


def ingest_in_a_process(settings_text: str, keys: list[str]) -> None:
    store = ObjectStore(**json.loads(settings_text))
    for key in keys:
        copied = CopiedObject(
            key=f"binance/{key}", size=0, sha256="", etag="", version_id=None, already_there=False
        )
        ingest(archive_file(key), copied, store, limits=REPETITIVE)


def ingest_and_die_before_the_commit(settings_text: str, key: str) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    bronze.replace = die
    ingest_in_a_process(settings_text, [key])


def test_the_way_of_real_files_from_landing_to_sql(store):
    for key in (KLINES, JANUARY_2, FUNDING, TRADES):
        file = archive_file(key)
        done = ingest(file, land(store, key), store)
        refine(
            settings(store),
            dataset=file.data_type,
            venue="binance",
            market=file.market,
            symbol=file.symbol,
            interval=file.interval,
            days=[done.first_day, done.last_day],
        )
        Catalogue(Lake.of(store)).record([file])
    answer = query(
        settings(store),
        "select count(*) as bars, min(open_time) as first, max(open_time) as last, sum(count) as trades "
        "from silver.candles where symbol = 'BTCUSDT' and interval = '1m'",
    ).to_pylist()
    assert answer[0]["bars"] == 2880
    assert (answer[0]["first"].isoformat(), answer[0]["last"].isoformat()) == (
        "2020-01-01T00:00:00+00:00",
        "2020-01-02T23:59:00+00:00",
    )
    counts = query(
        settings(store),
        "select (select count(*) from silver.agg_trades), (select count(*) from silver.funding_rates), "
        "(select count(*) from catalogue)",
    )
    assert [column[0].as_py() for column in counts.columns] == [105_280, 90, 4]


def test_workers_at_once_lose_and_double_nothing(store):
    keys = [KLINES.replace("01-01", f"01-{day:02}") for day in range(1, 13)]
    for day, key in enumerate(keys):
        start = 1_577_836_800_000 + day * 86_400_000
        land(store, key, zipped(lines(*(kline(n, day=start) for n in range(100)), "bad")))
    shares = [keys[:8], keys[4:], keys[::-1]]  # each file is brought in by two or three workers
    workers = [SPAWN.Process(target=ingest_in_a_process, args=(revealed(store), share)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    rows = table(store, "bronze/binance_klines")
    assert rows.height == 1200
    assert rows.select("source_key", "row_number").n_unique() == 1200
    assert rows.group_by("source_key").len()["len"].to_list() == [100] * 12
    assert table(store, "quarantine").height == 12


def test_a_worker_that_dies_before_the_commit_leaves_no_row(store):
    land(store, KLINES)
    worker = SPAWN.Process(target=ingest_and_die_before_the_commit, args=(revealed(store), KLINES))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    lake = Lake.of(store)
    orphans = [item["path"] for item in obstore.list(lake.bucket, prefix="bronze/binance_klines").collect()]
    assert len([path for path in orphans if path.endswith(".parquet")]) == 1
    assert not DeltaTable.is_deltatable(lake.uri("bronze/binance_klines"), storage_options=lake.options)
    done = ingest(archive_file(KLINES), land(store, KLINES), store)
    assert done.rows == table(store, "bronze/binance_klines").height == 1440


def test_a_worker_that_dies_in_the_middle_of_a_large_file_leaves_no_row(store):
    rows = lines(*(kline(n % 1440, close=f"{n % 997}.{n}") for n in range(400_000)))
    land(store, KLINES, zipped(rows))
    worker = SPAWN.Process(target=ingest_in_a_process, args=(revealed(store), [KLINES]))
    worker.start()
    time.sleep(1.5)
    worker.kill()
    worker.join()
    lake = Lake.of(store)
    if DeltaTable.is_deltatable(lake.uri("bronze/binance_klines"), storage_options=lake.options):
        assert table(store, "bronze/binance_klines").height in (0, 400_000)
    assert ingest(archive_file(KLINES), land(store, KLINES, zipped(rows)), store).rows == 400_000
    assert table(store, "bronze/binance_klines").height == 400_000


def test_one_bad_file_leaves_the_others_unharmed(store):
    ingest(archive_file(KLINES), land(store, KLINES), store)
    bad = land(store, JANUARY_2, zip_of({"a.csv": "1", "b.csv": "2"}))
    with pytest.raises(MultipleMembersError, match="exactly one CSV is expected"):
        ingest(archive_file(JANUARY_2), bad, store)
    assert set(table(store, "bronze/binance_klines")["source_key"]) == {KLINES}
    assert ingest(archive_file(JANUARY_2), land(store, JANUARY_2), store).rows == 1440
    assert table(store, "bronze/binance_klines").height == 2880


def test_sql_on_an_empty_lake_says_how_to_fill_it(store):
    with pytest.raises(SqlError, match=r"Nothing was collected yet for: silver\.candles"):
        query(settings(store), "select * from silver.candles")


def test_a_store_that_is_away_shows_no_secret(store):
    away = store.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    secret = store.secret_access_key.get_secret_value()
    copied = land(store, KLINES)
    with pytest.raises(StorageError, match="from landing: the object store failed") as reading:
        ingest(archive_file(KLINES), copied, away)
    assert secret not in str(reading.value)


@pytest.mark.parametrize("size", [200_000_000, 600_000_000])
def test_memory_stays_bounded_whatever_the_size(store, size):
    line = kline(0) + "\n"
    body = zipped(line * (size // len(line)))
    land(store, KLINES, body)
    worker = SPAWN.Process(target=ingest_within, args=(revealed(store), KLINES, 550_000_000))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0


def ingest_within(settings_text: str, key: str, limit: int) -> None:
    ingest_in_a_process(settings_text, [key])
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    if peak > limit:
        raise SystemExit(f"{peak} bytes were in use at the peak, {limit} are allowed")
