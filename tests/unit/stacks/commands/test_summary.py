import io
import json
from typing import Any

import duckdb
import pytest
from marketlake.settings import HealthKind, ServiceInfo
from rich.console import Console

from stacks.commands.summary import console_table, rows_of, silver_tables, summary_table


@pytest.fixture
def lake() -> Any:
    """A lake with two silver tables, and a query that answers as `marketlake sql --json` does."""
    lake = duckdb.connect()
    lake.execute("create schema silver; create schema bronze")
    lake.execute("create table silver.candles (symbol text, open_time timestamptz, close_time timestamptz)")
    lake.execute("create table bronze.binance_klines (symbol text, open_time timestamp)")
    lake.execute("create table silver.agg_trades (symbol text, price double, trade_time timestamp)")
    lake.execute("set timezone = 'UTC'")
    lake.execute(
        "insert into silver.candles values ('A', '2020-01-01 00:00', '2020-01-01 00:01'), "
        "('B', '2020-01-02 23:59', '2020-01-03 00:00'), ('B', '2020-01-02 23:58', '2020-01-02 23:59')"
    )

    def query(sql: str) -> list[dict[str, Any]]:
        cursor = lake.execute(sql)
        names = [column[0] for column in cursor.description]
        return rows_of(json.dumps([dict(zip(names, row, strict=True)) for row in cursor.fetchall()]))

    return query


def test_every_silver_table_is_summed_up_by_its_first_time(lake: Any) -> None:
    trades, candles = silver_tables(lake)
    assert (candles.table, candles.rows, candles.symbols) == ("silver.candles", 3, 2)
    assert (candles.first, candles.last) == ("2020-01-01 00:00", "2020-01-02 23:59")
    assert (trades.table, trades.rows, trades.first) == ("silver.agg_trades", 0, None)


def test_a_lake_without_silver_has_nothing_to_show() -> None:
    assert silver_tables(lambda _: []) == []


def text(table: Any) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_tables_are_readable(lake: Any) -> None:
    shown = text(summary_table(silver_tables(lake)))
    assert "silver.candles" in shown
    assert "symbols" in shown
    assert "…" not in shown, "a column was cut off on a terminal of 80 columns"
    assert "2020-01-02 23:59" in shown
    pages = text(
        console_table(
            [
                ServiceInfo(name="a", version="1", console="http://127.0.0.1:1/", health=HealthKind.PROCESS),
                ServiceInfo(name="worker", version="1", health=HealthKind.PROCESS),
            ]
        )
    )
    assert "http://127.0.0.1:1/" in pages
    assert "worker" not in pages
