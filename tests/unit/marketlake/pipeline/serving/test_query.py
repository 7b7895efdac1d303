from datetime import date
from pathlib import Path

import pytest
from marketlake.archive.discovery.catalogue import Catalogue
from marketlake.domain.archive import Series
from marketlake.infrastructure.storage.errors import StorageError
from marketlake.infrastructure.storage.stores import Lake
from marketlake.pipeline.batch.silver import refine_series
from marketlake.pipeline.serving.query import SqlError, query_lake, tables
from obstore.store import MemoryStore

from tests.unit.marketlake.pipeline.files import KLINES, archive_file, bring_in, kline, lines

DAY = [date(2020, 1, 1)]


@pytest.fixture
def filled(lake):
    for symbol in ("BTCUSDT", "ETHUSDT", "币安人生USDT"):
        key = KLINES.replace("BTCUSDT", symbol)
        bring_in(lake, key, lines(kline(0), kline(1), kline(5), "bad"))
        series = Series(venue="binance", market="spot", data_type="klines", symbol=symbol, interval="1m")
        refine_series(lake, series, DAY)
        Catalogue(lake).record([archive_file(key)])
    return lake


def rows(lake, sql):
    return [tuple(row.values()) for row in query_lake(lake, sql).to_pylist()]


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ("symbol = 'ETHUSDT'", 3),
        ("symbol in ('ETHUSDT', 'BTCUSDT', 'X')", 6),
        ("symbol > 'C' and symbol < 'F'", 3),
        ("symbol like 'BTC%' or symbol = '币安人生USDT'", 6),
        ("interval = '1m'", 9),
        ("interval <> '1m'", 0),
        ("open_time >= timestamptz '2020-01-01 00:05:00'", 3),
        ("open_time = '2020-01-01 00:01:00+00' and symbol = 'BTCUSDT'", 1),
        ("close > 2 and count = 4", 9),
    ],
)
def test_silver_is_queried_by_any_condition(filled, condition, count):
    assert rows(filled, "from silver.candles select count(*) where " + condition) == [(count,)]


def test_times_are_utc_microseconds_and_prices_doubles(filled):
    answer = query_lake(filled, "select open_time, close from silver.candles order by all limit 1")
    assert [str(field.type) for field in answer.schema] == ["timestamp[us, tz=UTC]", "double"]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select count(*) from bronze.binance_klines", (9,)),
        ("select distinct reason from quarantine where stage = 'bronze'", ("1 columns where 12 belong",)),
        ("select sum(missing) from gaps where table_name = 'candles' and symbol = 'ETHUSDT'", (1437,)),
        ("select count(*) from catalogue where data_type = 'klines' and symbol >= 'E'", (2,)),
        ("with t as (from silver.candles) select count(distinct symbol) from t", (3,)),
    ],
)
def test_the_other_tables_are_there_too(filled, sql, expected):
    assert rows(filled, sql) == [expected]


def test_the_schema_itself_can_be_asked(filled):
    names = rows(filled, "select table_name from information_schema.tables where table_schema = 'silver'")
    assert names == [("candles",)]
    assert ("symbol", "VARCHAR") in [row[:2] for row in rows(filled, "describe silver.candles")]


@pytest.mark.parametrize(
    "sql",
    [
        "drop view silver.candles",
        "create table t as select 1",
        "insert into silver.candles values (1)",
        "select 1; select 2",
        "",
        "copy (select 1) to '/tmp/x.csv'",
        "attach '/tmp/x.db'",
        "set enable_external_access = true",
        "install httpfs",
    ],
)
def test_anything_but_one_select_is_refused(filled, sql):
    with pytest.raises(SqlError, match="exactly one SELECT statement"):
        query_lake(filled, sql)


@pytest.mark.parametrize(
    "source",
    [
        "'/etc/passwd'",
        "read_csv('/etc/passwd')",
        "read_text('/etc/passwd')",
        "glob('/etc/*')",
        "read_parquet('http://127.0.0.1:9/x.parquet')",
        "read_parquet('s3://lake/x.parquet')",
        "duckdb_secrets()",
    ],
)
def test_neither_files_nor_the_network_can_be_reached(filled, source):
    with pytest.raises(SqlError):
        query_lake(filled, "from " + source)


def test_variables_of_this_program_cannot_be_reached(filled):
    secret = query_lake(filled, "select 1 as x")
    with pytest.raises(SqlError, match="secret does not exist"):
        query_lake(filled, "select * from secret")
    assert secret.num_rows == 1


@pytest.mark.parametrize("sql", ["selec 1", "select nope from silver.candles", "select 1 / 'a'"])
def test_a_wrong_statement_says_what_is_wrong_and_which_tables_there_are(filled, sql):
    with pytest.raises(
        SqlError,
        match=r"(?s)Error: .*Tables that there can be: silver.agg_trades, silver.candles, .*catalogue\.",
    ):
        query_lake(filled, sql)


def test_a_table_that_is_not_there_yet_says_how_to_fill_it(lake):
    with pytest.raises(
        SqlError, match=r"(?s)Nothing was collected yet for: silver.candles.*`marketlake collect`"
    ):
        query_lake(lake, "select * from silver.candles")


def test_a_lake_that_cannot_be_reached_is_no_mistake_in_the_statement():
    options = {
        "endpoint_url": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b", "region": "x",
        "allow_http": "true", "max_retries": "0", "retry_timeout": "1s",
    }  # fmt: skip
    with pytest.raises(StorageError, match="opening the table silver/candles"):
        query_lake(Lake("s3://lake", MemoryStore(), options), "select * from silver.candles")


def test_data_that_is_gone_is_a_failure_of_the_store(filled):
    for path in Path(filled.root, "silver", "candles").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(StorageError, match="reading the lake's tables"):
        query_lake(filled, "select * from silver.candles")


def test_every_table_has_one_name():
    assert len(set(tables().values())) == len(tables())
