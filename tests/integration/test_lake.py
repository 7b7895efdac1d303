"""The lake on a real object store."""

import json
import multiprocessing
from pathlib import Path
from uuid import uuid4

import obstore
import polars as pl
import pytest
from marketlake.archive.discovery.catalogue import Catalogue
from marketlake.infrastructure.storage.errors import StorageError
from marketlake.infrastructure.storage.stores import Lake, landing_store
from marketlake.pipeline.batch.silver import refine
from marketlake.pipeline.ingest.bronze import Bronze, FileRows, LandedFile
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

from tests.exchange import zip_of
from tests.provisioning import own_buckets
from tests.unit.marketlake.pipeline.files import (
    FUNDING,
    KLINES,
    LIMITS,
    SAMPLES,
    TRADES,
    archive_file,
    commit,
    kline,
    zipped,
)

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


def table(store: ObjectStore, name: str) -> pl.DataFrame:
    lake = Lake.of(store)
    return pl.read_delta(lake.uri(name), storage_options=lake.options)


def revealed(store: ObjectStore) -> str:
    secret = store.secret_access_key.get_secret_value()
    return json.dumps({**json.loads(store.model_dump_json()), "secret_access_key": secret})


def land(store: ObjectStore, key: str, body: bytes | None = None) -> str:
    """A file into the landing bucket; its key there."""
    landed = f"binance/{key.lstrip('/')}"
    obstore.put(landing_store(store), landed, (SAMPLES / key).read_bytes() if body is None else body)
    return landed


def ingest(store: ObjectStore, key: str, landed: str, *, limits: InflationLimits = LIMITS) -> FileRows:
    """A file's rows into bronze, read from the landing bucket."""
    lake = Lake.of(store)
    bronze = Bronze(lake, landing_store(store), limits)
    done = bronze.ingest([LandedFile(archive_file(key), landed, None)], str(uuid4()))
    if key in done.failures:
        raise done.failures[key]
    commit(lake, bronze.table(archive_file(key)), done.data_file, replacing=key)
    return done.files[key]


def test_the_way_of_real_files_from_landing_to_sql(store):
    for key in (KLINES, JANUARY_2, FUNDING, TRADES):
        file = archive_file(key)
        done = ingest(store, key, land(store, key))
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


def test_one_bad_file_leaves_the_others_unharmed(store):
    ingest(store, KLINES, land(store, KLINES))
    bad = land(store, JANUARY_2, zip_of({"a.csv": "1", "b.csv": "2"}))
    with pytest.raises(MultipleMembersError, match="exactly one CSV is expected"):
        ingest(store, JANUARY_2, bad)
    assert set(table(store, "bronze/binance_klines")["source_key"]) == {KLINES}
    assert ingest(store, JANUARY_2, land(store, JANUARY_2)).rows == 1440
    assert table(store, "bronze/binance_klines").height == 2880


def test_the_version_that_was_proven_is_read_whatever_is_copied_meanwhile(store):
    landing, line = landing_store(store), kline(0) + "\n"
    first = obstore.put(landing, "binance/k", zipped(line))
    second = obstore.put(landing, "binance/k", zipped(line + line))
    for etag, version_id, rows in [
        (None, first["version"], 1),
        (None, second["version"], 2),
        (second["e_tag"], None, 2),
    ]:
        landed = LandedFile(
            archive_file(KLINES), "binance/k", None, version_id=version_id, etag=etag and etag.strip('"')
        )
        done = Bronze(Lake.of(store), landing, LIMITS).ingest([landed], str(uuid4()))
        assert done.files[KLINES].rows == rows
    changed = LandedFile(archive_file(KLINES), "binance/k", None, etag=first["e_tag"].strip('"'))
    with pytest.raises(StorageError):
        Bronze(Lake.of(store), landing, LIMITS).ingest([changed], str(uuid4()))


def test_sql_on_an_empty_lake_says_how_to_fill_it(store):
    with pytest.raises(SqlError, match=r"Nothing was collected yet for: silver\.candles"):
        query(settings(store), "select * from silver.candles")


def test_a_store_that_is_away_shows_no_secret(store):
    away = store.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    secret = store.secret_access_key.get_secret_value()
    bronze = Bronze(Lake.of(away), landing_store(away), LIMITS)
    with pytest.raises(StorageError, match="from landing: the object store failed") as reading:
        bronze.ingest([LandedFile(archive_file(KLINES), "k", None)], "name")
    assert secret not in str(reading.value)


@pytest.mark.parametrize("size", [200_000_000, 600_000_000])
def test_memory_stays_bounded_whatever_the_size(store, size):
    line = kline(0) + "\n"
    landed = land(store, KLINES, zipped(line * (size // len(line))))
    worker = SPAWN.Process(target=ingest_within, args=(revealed(store), landed, 550_000_000))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0


def ingest_within(settings_text: str, landed: str, limit: int) -> None:
    ingest(ObjectStore(**json.loads(settings_text)), KLINES, landed, limits=REPETITIVE)
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    if peak > limit:
        raise SystemExit(f"{peak} bytes were in use at the peak, {limit} are allowed")
