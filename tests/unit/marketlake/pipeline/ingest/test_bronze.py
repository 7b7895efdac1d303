from datetime import UTC, date, datetime

import polars as pl
import pytest
from deltalake import DeltaTable
from marketlake.infrastructure.storage.errors import StorageError
from marketlake.pipeline.contracts.table_type import UnsupportedDatasetError
from marketlake.pipeline.ingest import bronze
from marketlake.pipeline.ingest import csv_parser as parse
from marketlake.pipeline.ingest.bronze import Bronze, LandedFile
from marketlake.pipeline.ingest.errors import SchemaChangedError
from marketlake.sync.errors import EmptyFileError
from obstore.store import MemoryStore

from tests.unit.marketlake.pipeline.files import (
    FUNDING,
    KLINES,
    LIMITS,
    SPOT_TRADES,
    TRADES,
    archive_file,
    bring_in,
    kline,
    lines,
    sample,
    trade,
)

MAY_8 = 1_778_198_400_000


def table(lake, name):
    return pl.read_delta(lake.uri(name))


def versions(lake, name):
    return DeltaTable(lake.uri(name)).version()


def test_real_bars_come_in_typed_and_in_order(lake):
    done = bring_in(lake, KLINES)
    assert (done.rows, done.quarantined, done.header) == (1440, 0, False)
    assert (done.first_day, done.last_day) == (date(2020, 1, 1), date(2020, 1, 1))
    rows = table(lake, "bronze/binance_klines")
    first = rows.row(0, named=True)
    assert first["open_time"] == datetime(2020, 1, 1, tzinfo=UTC)
    assert first["close_time"] == datetime(2020, 1, 1, 0, 0, 59, 999_000, tzinfo=UTC)
    assert (first["open"], first["volume"], first["count"]) == (7195.24, 51.642812, 493)
    assert (first["venue"], first["market"], first["symbol"], first["interval"]) == (
        "binance",
        "spot",
        "BTCUSDT",
        "1m",
    )
    assert (first["frequency"], first["source_key"]) == ("daily", KLINES)
    assert rows["row_number"].to_list() == list(range(1, 1441))


def test_every_number_of_a_real_file_is_what_its_text_says(lake):
    bring_in(lake, TRADES)
    texts = [line.split(",") for line in sample(TRADES).splitlines()[1:]]
    rows = table(lake, "bronze/binance_agg_trades")
    assert rows["price"].to_list() == [float(fields[1]) for fields in texts]
    assert rows["quantity"].to_list() == [float(fields[2]) for fields in texts]
    assert rows["agg_trade_id"].to_list() == [int(fields[0]) for fields in texts]
    assert rows["transact_time"].dt.epoch("ms").to_list() == [int(fields[5]) for fields in texts]
    assert rows["is_buyer_maker"].to_list() == [fields[6] == "true" for fields in texts]
    assert rows["is_best_match"].null_count() == len(texts)


def test_a_header_is_seen_and_is_no_row(lake):
    done = bring_in(lake, FUNDING)
    assert (done.rows, done.header) == (90, True)
    assert (done.first_day, done.last_day) == (date(2026, 4, 1), date(2026, 4, 30))


@pytest.mark.parametrize("unit", [1, 1000], ids=["milliseconds", "microseconds"])
def test_the_unit_of_time_is_told_by_magnitude(lake, unit):
    row = f"7,1.5,2,1,1,{(MAY_8 + 7) * unit},True,False"
    bring_in(lake, SPOT_TRADES, lines(row))
    assert table(lake, "bronze/binance_agg_trades")["transact_time"].to_list() == [
        datetime(2026, 5, 8, 0, 0, 0, 7000, tzinfo=UTC)
    ]


def test_both_units_in_one_file_are_told_apart_row_by_row(lake):
    text = lines(trade(1, MAY_8, tail="True,True"), trade(2, MAY_8 * 1000, tail="True,True"))
    bring_in(lake, SPOT_TRADES, text)
    assert set(table(lake, "bronze/binance_agg_trades")["transact_time"]) == {
        datetime(2026, 5, 8, tzinfo=UTC)
    }


def test_truth_values_are_read_in_both_spellings(lake):
    text = lines(*(trade(i, MAY_8 + i, tail=tail) for i, tail in enumerate(["True,False", "false,true"])))
    bring_in(lake, SPOT_TRADES, text)
    rows = table(lake, "bronze/binance_agg_trades")
    assert rows.select("is_buyer_maker", "is_best_match").rows() == [(True, False), (False, True)]


@pytest.mark.parametrize("end", ["", "\r\n"])
def test_the_end_of_lines_does_not_matter(lake, end):
    rows = (end or "\n").join([kline(0), kline(1)]) + end
    assert bring_in(lake, KLINES, rows).rows == 2


BAD = [
    ("text where a number belongs", kline(1, close="n/a"), "close: 'n/a' is no number"),
    ("too few columns", "1577836860000,2,3", "3 columns where 12 belong"),
    ("no last column", kline(1).removesuffix(",0"), "11 columns where 12 belong"),
    ("too many columns", kline(1) + ",9", "13 columns where 12 belong"),
    ("nothing", "", "1 columns where 12 belong"),
    ("an empty field", kline(1, volume=""), "volume is empty"),
    ("a quoted null", kline(1, volume='""'), "volume is empty"),
    ("a fraction of a trade", kline(1, count="4.5"), "count: '4.5' is no whole number"),
    ("not a number", kline(1, close="NaN"), "close: 'NaN' is no finite number"),
    ("infinity", kline(1, close="inf"), "close: 'inf' is no finite number"),
    ("seconds", kline(1, open_time="1577836860"), "open_time: '1577836860' is no time since 2009"),
    ("a date", kline(1, open_time="2020-01-01"), "open_time: '2020-01-01' is no time"),
    ("a number beyond 64 bits", kline(1, count="9" * 25), "is no whole number"),
    ("bytes that are no text", kline(1, close="\ufffd"), "is no number"),
]


@pytest.mark.parametrize(("kind", "bad", "reason"), BAD, ids=[row[0] for row in BAD])
def test_a_bad_row_goes_to_quarantine_with_its_reason_and_the_rest_comes_in(lake, kind, bad, reason):
    done = bring_in(lake, KLINES, lines(kline(0), bad, kline(2)))
    assert (done.rows, done.quarantined) == (2, 1)
    assert table(lake, "bronze/binance_klines")["row_number"].to_list() == [1, 3]
    (row,) = table(lake, "quarantine").rows(named=True)
    assert reason in row["reason"]
    assert (row["raw"], row["row_number"], row["source_key"]) == (bad, 2, KLINES)
    assert (row["stage"], row["venue"], row["market"], row["data_type"], row["symbol"], row["interval"]) == (
        "bronze", "binance", "spot", "klines", "BTCUSDT", "1m",
    )  # fmt: skip
    assert row["quarantined_at"].tzinfo is not None


def test_a_truth_value_that_is_none_is_quarantined(lake):
    bring_in(lake, TRADES, lines(trade(1, MAY_8), trade(2, MAY_8, tail="maybe")))
    assert table(lake, "quarantine")["reason"].to_list() == ["is_buyer_maker: 'maybe' is no truth value"]


def test_bytes_that_are_no_utf_8_are_quarantined_readably(lake):
    bring_in(lake, KLINES, lines(kline(0)).encode() + b"\xff\xfe,1\n")
    assert table(lake, "quarantine")["raw"].to_list() == ["\ufffd\ufffd,1"]


def test_a_file_brought_in_twice_is_there_once(lake):
    for _ in range(3):
        bring_in(lake, KLINES)
    assert versions(lake, "bronze/binance_klines") == 3
    assert table(lake, "bronze/binance_klines").height == 1440


def test_a_replaced_file_replaces_its_rows_and_its_quarantine_only(lake):
    other = KLINES.replace("2020-01-01", "2020-01-02")
    bring_in(lake, other, lines(kline(0), "bad"))
    bring_in(lake, KLINES, lines(kline(0), "bad", "worse"))
    bring_in(lake, KLINES, lines(kline(0, close="2.75"), kline(1)))
    rows = table(lake, "bronze/binance_klines").filter(pl.col("source_key") == KLINES)
    assert rows["close"].to_list() == [2.75, 2.5]
    assert table(lake, "quarantine")["source_key"].to_list() == [other]


def test_series_share_a_table_without_touching_each_other(lake):
    for key in (
        KLINES,
        KLINES.replace("BTCUSDT", "币安人生USDT"),
        f"/{KLINES.replace('daily', 'monthly')[:-7]}.zip",
    ):
        bring_in(lake, key, lines(kline(0)))
    assert sorted(table(lake, "bronze/binance_klines")["symbol"]) == ["BTCUSDT", "BTCUSDT", "币安人生USDT"]


def test_a_file_of_many_batches_is_numbered_through(lake, monkeypatch):
    monkeypatch.setattr(parse, "BATCH", 10_000)
    rows = [trade(number, MAY_8 + number) for number in range(5_000)]
    rows[3_000] = "bad"
    done = bring_in(lake, TRADES, lines(*rows))
    assert (done.rows, done.quarantined) == (4_999, 1)
    numbers = table(lake, "bronze/binance_agg_trades")["row_number"].to_list()
    assert numbers == [number for number in range(1, 5_001) if number != 3_001]
    assert table(lake, "quarantine")["row_number"].to_list() == [3_001]


def test_a_flood_of_bad_rows_is_counted_but_not_kept_whole(lake, monkeypatch):
    monkeypatch.setattr(bronze, "QUARANTINED_AT_ONCE", 5)
    done = bring_in(lake, KLINES, lines(kline(0), *["bad"] * 20))
    assert done.quarantined == 20
    assert table(lake, "quarantine").height == 5


@pytest.mark.parametrize(
    "text",
    [
        lines("open_time,open,high,low,close", *(kline(i) for i in range(3))),
        lines("open_time,open,high,low,close,base,close_time,quote_volume,count,a,b,ignore", kline(0)),
        lines(*(f"{kline(i)},1" for i in range(3))),
        lines(*(f"{1577836800 + i},a,b" for i in range(3))),
        lines(*(kline(i, open_time=f"2020-01-01 00:0{i}:00") for i in range(3))),
    ],
    ids=["shorter header", "renamed columns", "one column more", "other columns", "another kind of time"],
)
def test_a_format_that_changed_throughout_is_an_error_that_names_expected_and_got(lake, text):
    bring_in(lake, KLINES)
    with pytest.raises(SchemaChangedError) as raised:
        bring_in(lake, KLINES.replace("01-01", "01-02"), text)
    message = str(raised.value)
    assert "Expected 12: open_time,open,high,low,close,volume" in message
    assert f"got {text.splitlines()[0].count(',') + 1}: {text.splitlines()[0]}" in message
    assert "nothing of the file was taken over" in message
    assert table(lake, "bronze/binance_klines").height == 1440
    assert versions(lake, "bronze/binance_klines") == 1


def test_a_text_without_lines_is_no_csv(lake, monkeypatch):
    monkeypatch.setattr(parse, "BATCH", 2_000)
    monkeypatch.setattr(parse, "LONGEST_LINE", 1_000)
    with pytest.raises(SchemaChangedError, match="no line ends within 1000 bytes; expected CSV, got b'xxx"):
        bring_in(lake, KLINES, "x" * 100_000)


@pytest.mark.parametrize("text", ["\n", " \r\n\n"])
def test_a_file_of_blank_lines_is_empty(lake, text):
    with pytest.raises(EmptyFileError, match="there is no row in it"):
        bring_in(lake, KLINES, text)


def test_a_header_without_rows_is_a_file_without_rows(lake):
    done = bring_in(lake, FUNDING, "calc_time,funding_interval_hours,last_funding_rate\n")
    assert (done.rows, done.header, done.first_day) == (0, True, None)
    assert table(lake, "bronze/binance_funding_rate").height == 0


def test_a_data_type_without_declaration_is_refused_with_those_that_have_one(lake):
    key = "data/futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-2026-05-08.zip"
    with pytest.raises(
        UnsupportedDatasetError,
        match="no contract is mapped to 'metrics' of binance; mapped are: klines, aggTrades",
    ):
        bring_in(lake, key, "1")


def test_a_market_that_the_venue_does_not_have_is_refused(lake):
    with pytest.raises(UnsupportedDatasetError, match="binance has no dataset margin klines"):
        bring_in(lake, KLINES, lines(kline(0)), market="margin")


def test_a_file_that_is_not_in_landing_is_a_failure_of_the_store(lake):
    landed = LandedFile(archive_file(KLINES), "object.zip", None)
    for group in ([landed], [landed, landed]):
        with pytest.raises(StorageError, match=r"reading files from landing: .*object\.zip"):
            Bronze(lake, MemoryStore(), LIMITS).ingest(group, "name")


def test_the_tables_can_be_read_by_others_with_all_columns(lake):
    bring_in(lake, TRADES)
    dataset = DeltaTable(lake.uri("bronze/binance_agg_trades")).to_pyarrow_dataset()
    assert dataset.count_rows() == 105_280
    assert dataset.schema.names[:5] == ["venue", "market", "symbol", "frequency", "source_key"]
    (action,) = pl.DataFrame(
        DeltaTable(lake.uri("bronze/binance_agg_trades")).get_add_actions(flatten=True)
    ).rows(named=True)
    assert action["min.symbol"] == action["max.symbol"] == "BTCUSD_PERP"
    assert action["min.transact_time"] == datetime(2026, 5, 8, 0, 0, 0, 20_000, tzinfo=UTC)
    assert action["num_records"] == 105_280
