from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from deltalake import DeltaTable
from marketlake.domain.archive import Frequency, Series
from marketlake.infrastructure.storage.delta import scan_files
from marketlake.pipeline.batch import bronze_rows, silver
from marketlake.pipeline.batch.bronze_rows import BronzeRows
from marketlake.pipeline.batch.silver import refine_many, refine_series

from tests.unit.marketlake.pipeline.files import (
    FUNDING,
    KLINES,
    TRADES,
    bring_in,
    kline,
    lines,
    sample,
    trade,
)

BARS = Series(venue="binance", market="spot", data_type="klines", symbol="BTCUSDT", interval="1m")
SWAPS = Series(venue="binance", market="cm", data_type="aggTrades", symbol="BTCUSD_PERP", interval=None)
FUNDINGS = Series(venue="binance", market="um", data_type="fundingRate", symbol="BTCUSDT", interval=None)
JANUARY = [date(2020, 1, 1)]
MAY_8 = [date(2026, 5, 8)]
MAY_8_MS = 1_778_198_400_000
DAY_MS = 86_400_000
MAY_9 = TRADES.replace("05-08", "05-09")
JANUARY_2 = KLINES.replace("01-01", "01-02")
MONTHLY = "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01.zip"


def table(lake, name):
    return pl.read_delta(lake.uri(name))


def quarantine(lake):
    return table(lake, "quarantine").filter(pl.col("stage") == "silver")


def test_real_bars_become_silver_complete_and_in_order(lake):
    bring_in(lake, JANUARY_2)
    bring_in(lake, KLINES)
    done = refine_series(lake, BARS, [date(2020, 1, 1), date(2020, 1, 2)])
    assert (done.table, done.rows, done.duplicates, done.rejected, done.gaps) == (
        "silver.candles",
        2880,
        0,
        0,
        (),
    )
    assert done.periods == ("2020-01",)
    rows = table(lake, "silver/candles")
    times = rows["open_time"].to_list()
    assert times == [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(2880)]
    assert rows["volume"].sum() == pytest.approx(
        sum(float(line.split(",")[5]) for key in (KLINES, JANUARY_2) for line in sample(key).splitlines())
    )
    assert set(rows["symbol"]) == {"BTCUSDT"}
    assert rows["contracts"].null_count() == 2880


def test_real_trades_and_fundings_become_silver(lake):
    bring_in(lake, TRADES)
    bring_in(lake, FUNDING)
    trades = refine_series(lake, SWAPS, MAY_8)
    fundings = refine_series(lake, FUNDINGS, [date(2026, 4, 1)])
    assert (trades.rows, trades.duplicates, trades.rejected) == (105_280, 0, 0)
    assert sum(gap.missing for gap in trades.gaps) == 480_643_182 - 480_537_903 + 1 - 105_280
    assert (fundings.rows, fundings.gaps) == (90, ())
    rows = table(lake, "silver/funding_rates")
    assert (rows["calc_time"] - rows["funding_time"]).abs().max() < timedelta(seconds=1)
    assert rows["funding_time"].dt.hour().unique().sort().to_list() == [0, 8, 16]


def test_coin_margined_volumes_are_what_they_are_not_what_the_header_says(lake):
    key = "data/futures/cm/daily/klines/BTCUSD_PERP/1m/BTCUSD_PERP-1m-2020-01-01.zip"
    bring_in(lake, key, lines(kline(0, volume="500", quote_volume="7", taker_buy_volume="200")))
    series = Series(venue="binance", market="cm", data_type="klines", symbol="BTCUSD_PERP", interval="1m")
    refine_series(lake, series, JANUARY)
    (row,) = table(lake, "silver/candles").rows(named=True)
    assert (row["contracts"], row["volume"], row["quote_volume"]) == (500, 7, None)
    assert (row["taker_buy_contracts"], row["taker_buy_volume"], row["taker_buy_quote_volume"]) == (
        200,
        15,
        None,
    )


@pytest.mark.parametrize(
    ("symbol", "quantity"),
    [("BTCUSD_PERP", 5 * 100 / 250), ("ETHUSD_260925", 5 * 10 / 250), ("NEWUSD_PERP", None)],
)
def test_coin_margined_trades_count_contracts_and_have_a_quantity_where_their_size_is_known(
    lake, symbol, quantity
):
    bring_in(
        lake, TRADES.replace("BTCUSD_PERP", symbol), lines(trade(1, MAY_8_MS, price="250", quantity="5"))
    )
    series = Series(venue="binance", market="cm", data_type="aggTrades", symbol=symbol, interval=None)
    assert refine_series(lake, series, MAY_8).rejected == 0
    rows = table(lake, "silver/agg_trades")
    assert rows.select("contracts", "quantity").rows() == [(5, quantity)]


def test_trades_of_the_base_asset_count_no_contracts(lake):
    key = TRADES.replace("/cm/", "/um/").replace("BTCUSD_PERP", "BTCUSDT")
    bring_in(lake, key, lines(trade(1, MAY_8_MS, quantity="5")))
    series = Series(venue="binance", market="um", data_type="aggTrades", symbol="BTCUSDT", interval=None)
    refine_series(lake, series, MAY_8)
    assert table(lake, "silver/agg_trades").select("contracts", "quantity").rows() == [(None, 5)]


def test_refining_again_changes_nothing(lake):
    bring_in(lake, KLINES)
    first = refine_series(lake, BARS, JANUARY)
    before = table(lake, "silver/candles")
    second = refine_series(lake, BARS, JANUARY)
    assert second.rows == first.rows
    assert table(lake, "silver/candles").equals(before)


def test_only_the_touched_periods_are_rewritten(lake):
    february = KLINES.replace("2020-01-01", "2020-02-01")
    bring_in(lake, KLINES)
    bring_in(lake, february, lines(kline(0, day=1_580_515_200_000)))
    refine_series(lake, BARS, [date(2020, 1, 1), date(2020, 2, 1)])
    bring_in(lake, KLINES, lines(kline(0)))
    bring_in(lake, february, lines(kline(0, day=1_580_515_200_000), kline(1, day=1_580_515_200_000)))
    done = refine_series(lake, BARS, JANUARY)
    assert (done.periods, done.rows) == (("2020-01",), 1)
    months = table(lake, "silver/candles").group_by(pl.col("open_time").dt.month()).len()
    assert months.sort("open_time").rows() == [
        (1, 1), (2, 1),
    ]  # fmt: skip


def test_other_series_are_left_alone(lake):
    bring_in(lake, KLINES, lines(kline(0)))
    bring_in(lake, KLINES.replace("BTCUSDT", "ETHUSDT"), lines(kline(0), kline(1)))
    bring_in(lake, KLINES.replace("1m", "5m"), lines(kline(0)))
    for symbol, interval, rows in (("BTCUSDT", "1m", 1), ("ETHUSDT", "1m", 2), ("BTCUSDT", "5m", 1)):
        series = Series(venue="binance", market="spot", data_type="klines", symbol=symbol, interval=interval)
        assert refine_series(lake, series, JANUARY).rows == rows
    assert table(lake, "silver/candles").height == 4


def test_many_series_become_in_one_commit_what_they_become_one_by_one(lake):
    series = {
        symbol: Series(venue="binance", market="spot", data_type="klines", symbol=symbol, interval="1m")
        for symbol in ("BTCUSDT", "ETHUSDT", "XRPUSDT")
    }
    for number, symbol in enumerate(series):
        bring_in(lake, KLINES.replace("BTCUSDT", symbol), lines(kline(number), kline(4), kline(5, high="2")))
    one_by_one = [refine_series(lake, one, JANUARY) for one in series.values()]
    rows, gaps, rejected = table(lake, "silver/candles"), table(lake, "gaps"), quarantine(lake)
    for symbol in series:
        bring_in(lake, KLINES.replace("BTCUSDT", symbol), lines(kline(0)))
    refine_many(lake, dict.fromkeys(series.values(), JANUARY))
    for number, symbol in enumerate(series):
        bring_in(lake, KLINES.replace("BTCUSDT", symbol), lines(kline(number), kline(4), kline(5, high="2")))
    before = DeltaTable(lake.uri("silver/candles")).version()
    together = refine_many(lake, dict.fromkeys(series.values(), JANUARY))
    assert DeltaTable(lake.uri("silver/candles")).version() == before + 1
    assert [replace(done, version=0) for done in together] == [
        replace(done, version=0) for done in one_by_one
    ]
    order = ["symbol", "open_time"]
    assert table(lake, "silver/candles").sort(order).equals(rows.sort(order))
    assert table(lake, "gaps").sort("symbol", "first").equals(gaps.sort("symbol", "first"))
    told = ["symbol", "source_key", "row_number", "reason"]
    assert quarantine(lake).select(told).sort(told).equals(rejected.select(told).sort(told))


@pytest.mark.parametrize(("at_once", "scans"), [(1000, 1), (12, 2)])
def test_series_whose_rows_are_few_are_read_together(lake, monkeypatch, at_once, scans):
    """A data file of daily life has some rows each of many series, and would be opened for each of them."""
    symbols = [f"COIN{number}USDT" for number in range(4)]
    for day in (KLINES, JANUARY_2):
        for symbol in symbols:
            hours = [kline(minute, day=1_577_836_800_000 + DAY_MS * (day == JANUARY_2)) for minute in (0, 60)]
            bring_in(lake, day.replace("BTCUSDT", symbol).replace("1m", "1h"), lines(*hours))
    asked = []

    def counted(lake, shape, paths):
        asked.append(len(list(paths)))
        return scan_files(lake, shape, paths)

    monkeypatch.setattr(bronze_rows, "scan_files", counted)
    monkeypatch.setattr(bronze_rows, "ROWS_AT_ONCE", at_once)
    wanted = [replace(BARS, symbol=symbol, interval="1h") for symbol in symbols]
    monkeypatch.setattr(BronzeRows, "most_rows", lambda *_: 6)
    done = refine_many(lake, dict.fromkeys(wanted, JANUARY))
    assert [refined.rows for refined in done] == [4, 4, 4, 4]
    assert set(table(lake, "silver/candles")["symbol"]) == set(symbols)
    assert len(asked) == scans


def test_rows_out_of_order_are_put_in_order(lake):
    bring_in(lake, KLINES, lines(kline(2), kline(0), kline(1)))
    refine_series(lake, BARS, JANUARY)
    assert table(lake, "silver/candles")["row_number"].to_list() == [2, 3, 1]


def test_monthly_and_daily_files_overlap_without_doubling_a_row(lake):
    bring_in(lake, KLINES)
    bring_in(lake, MONTHLY, sample(KLINES) + sample(JANUARY_2))
    done = refine_series(lake, BARS, JANUARY)
    assert (done.rows, done.duplicates, done.rejected) == (2880, 1440, 0)
    assert set(table(lake, "silver/candles")["source_key"]) == {MONTHLY}


def test_which_file_is_monthly_is_what_was_recorded_of_it_whatever_its_key(lake):
    bring_in(lake, KLINES, lines(kline(0, close="2.25")), frequency=Frequency.MONTHLY)
    bring_in(lake, MONTHLY, lines(kline(0)), frequency=Frequency.DAILY)
    refine_series(lake, BARS, JANUARY)
    assert table(lake, "silver/candles")["source_key"].to_list() == [KLINES]


def test_candles_say_whose_price_they_are(lake):
    bring_in(lake, KLINES, lines(kline(0)))
    refine_series(lake, BARS, JANUARY)
    assert table(lake, "silver/candles")["price_kind"].to_list() == ["trade"]


def test_a_row_that_contradicts_the_one_that_is_kept_is_not_silently_dropped(lake):
    bring_in(lake, KLINES, lines(kline(0, close="2.25"), kline(1)))
    bring_in(lake, MONTHLY, lines(kline(0), kline(1)))
    done = refine_series(lake, BARS, JANUARY)
    assert (done.rows, done.duplicates, done.rejected) == (2, 2, 1)
    assert table(lake, "silver/candles")["close"].to_list() == [2.5, 2.5]
    (row,) = quarantine(lake).rows(named=True)
    assert (
        row["reason"] == f"another row of the same open_time is kept, with other values: row 1 of {MONTHLY}"
    )
    assert (row["source_key"], row["row_number"]) == (KLINES, 1)
    assert '"close":2.25' in row["raw"]


def test_the_same_trade_in_two_days_files_is_kept_once(lake):
    both = trade(7, MAY_8_MS + DAY_MS - 5)
    bring_in(lake, TRADES, lines(trade(6, MAY_8_MS + 9), both))
    bring_in(lake, MAY_9, lines(both, trade(8, MAY_8_MS + DAY_MS + 5)))
    refine_series(lake, SWAPS, [date(2026, 5, 8), date(2026, 5, 9)])
    rows = table(lake, "silver/agg_trades").sort("agg_trade_id")
    assert rows["agg_trade_id"].to_list() == [6, 7, 8]


@pytest.mark.parametrize("first", ["the later day first", "the earlier day first"])
def test_a_trade_with_two_times_across_midnight_is_kept_once_whichever_day_comes_first(lake, first):
    files = [
        (TRADES, date(2026, 5, 8), lines(trade(6, MAY_8_MS + 9), trade(7, MAY_8_MS + DAY_MS - 1))),
        (MAY_9, date(2026, 5, 9), lines(trade(7, MAY_8_MS + DAY_MS + 1), trade(8, MAY_8_MS + DAY_MS + 5))),
    ]
    for key, day, text in files if first == "the earlier day first" else reversed(files):
        bring_in(lake, key, text)
        refine_series(lake, SWAPS, [day])
    rows = table(lake, "silver/agg_trades").sort("transact_time")
    assert rows["agg_trade_id"].to_list() == [6, 7, 8]
    assert rows["source_key"].to_list() == [TRADES, TRADES, MAY_9]


BROKEN = [
    (BARS, KLINES, kline(1, open="-1", low="-1"), "a price is not positive"),
    (BARS, KLINES, kline(1, high="2"), "high is below open, close or low"),
    (BARS, KLINES, kline(1, low="2.25"), "low is above open or close"),
    (BARS, KLINES, kline(1, volume="-1"), "a volume or count is negative"),
    (BARS, KLINES, kline(1, close_time=str(1_577_836_860_000)), "close_time is not after open_time"),
    (SWAPS, TRADES, trade(3, MAY_8_MS, price="0"), "the price is not positive"),
    (SWAPS, TRADES, trade(3, MAY_8_MS, quantity="-2"), "the quantity is not positive"),
    (SWAPS, TRADES, f"3,1,1,9,8,{MAY_8_MS},true", "last_trade_id is before first_trade_id"),
    (FUNDINGS, FUNDING, f"{MAY_8_MS},0,0.1", "funding_interval_hours is not within 1..24"),
    (FUNDINGS, FUNDING, f"{MAY_8_MS},8,1.5", "the rate is beyond ±100 %"),
]


@pytest.mark.parametrize(("series", "key", "row", "reason"), BROKEN, ids=[row[3] for row in BROKEN])
def test_a_row_that_breaks_a_promise_goes_to_quarantine(lake, series, key, row, reason):
    good = {BARS: kline(0), SWAPS: trade(2, MAY_8_MS), FUNDINGS: f"{MAY_8_MS + DAY_MS},8,0.0001"}[series]
    bring_in(lake, key, lines(good, row))
    done = refine_series(lake, series, [date(2020, 1, 1), date(2026, 5, 8)])
    assert (done.rows, done.rejected) == (1, 1)
    (rejected,) = quarantine(lake).rows(named=True)
    assert (rejected["reason"], rejected["source_key"], rejected["row_number"]) == (reason, key, 2)
    assert rejected["stage"] == "silver"
    assert rejected["data_type"] == series.data_type


def test_quarantine_is_emptied_once_the_venue_has_corrected_the_file(lake):
    bring_in(lake, KLINES, lines(kline(0), kline(1, high="2")))
    refine_series(lake, BARS, JANUARY)
    assert quarantine(lake).height == 1
    bring_in(lake, KLINES, lines(kline(0), kline(1)))
    assert refine_series(lake, BARS, JANUARY).rejected == 0
    assert quarantine(lake).height == 0


def test_missing_bars_are_known(lake):
    present = [n for n in range(1440) if n not in (0, 10, 11, 12, 1439)]
    bring_in(lake, KLINES, lines(*(kline(n) for n in present)))
    done = refine_series(lake, BARS, JANUARY)
    start = datetime(2020, 1, 1, tzinfo=UTC)
    assert [(gap.first, gap.last, gap.missing) for gap in done.gaps] == [
        (start, start, 1),
        (start + timedelta(minutes=10), start + timedelta(minutes=12), 3),
        (start + timedelta(minutes=1439), start + timedelta(minutes=1439), 1),
    ]
    rows = table(lake, "gaps").sort("first")
    assert rows["missing"].to_list() == [1, 3, 1]
    assert rows.row(0, named=True) == {
        "table_name": "candles", "venue": "binance", "market": "spot", "symbol": "BTCUSDT",
        "period": "2020-01",
        "interval": "1m", "price_kind": "trade",
        "first": start, "last": start, "first_id": None, "last_id": None, "missing": 1,
    }  # fmt: skip


def test_a_whole_missing_day_between_two_is_a_gap(lake):
    third = KLINES.replace("01-01", "01-03")
    bring_in(lake, KLINES)
    bars = (kline(n, day=1_577_836_800_000 + 2 * DAY_MS) for n in range(1440))
    bring_in(lake, third, lines(*bars))
    (gap,) = refine_series(lake, BARS, JANUARY).gaps
    assert (gap.first.day, gap.last.day, gap.missing) == (2, 2, 1440)


def test_gaps_that_are_filled_are_forgotten(lake):
    bring_in(lake, KLINES, lines(kline(0), kline(1439)))
    refine_series(lake, BARS, JANUARY)
    bring_in(lake, KLINES)
    assert refine_series(lake, BARS, JANUARY).gaps == ()
    assert table(lake, "gaps").height == 0


def test_missing_trade_numbers_are_known(lake):
    bring_in(lake, TRADES, lines(*(trade(n, MAY_8_MS + n) for n in (1, 2, 5, 6, 10))))
    done = refine_series(lake, SWAPS, MAY_8)
    assert [gap.missing for gap in done.gaps] == [2, 3]
    assert table(lake, "gaps").sort("first_id").select("first_id", "last_id").rows() == [(3, 4), (7, 9)]


def test_missing_fundings_are_known_across_a_change_of_interval(lake):
    hour = 3_600_000
    rows = [(0, 8), (8, 8), (24, 8), (28, 4), (32, 4), (44, 4)]
    text = lines(*(f"{MAY_8_MS + at * hour + at % 7},{hours},0.0001" for at, hours in rows))
    bring_in(lake, FUNDING, text)
    done = refine_series(lake, FUNDINGS, MAY_8)
    start = datetime(2026, 5, 8, tzinfo=UTC)
    assert [(gap.first, gap.last, gap.missing) for gap in done.gaps] == [
        (start + timedelta(hours=16), start + timedelta(hours=16), 1),
        (start + timedelta(hours=36), start + timedelta(hours=40), 2),
    ]


JANUARY_MS, FEBRUARY_MS, MARCH_MS = 1_577_836_800_000, 1_580_515_200_000, 1_583_020_800_000


def gaps_of(lake):
    """First and last moment, and how many rows are missing, as the table has it."""
    return table(lake, "gaps").sort("first").select("first", "last", "missing", "period").rows()


@pytest.mark.parametrize("together", [True, False])
def test_what_is_missing_between_two_periods_is_known(lake, together):
    """Two days with a month between them, refined at once or one after the other, the later one first."""
    bring_in(lake, KLINES, lines(*(kline(n) for n in range(1440))))
    bring_in(lake, KLINES.replace("01-01", "03-01"), lines(*(kline(n, day=MARCH_MS) for n in range(1440))))
    days = [date(2020, 3, 1), date(2020, 1, 1)]
    for some in [days] if together else [[day] for day in days]:
        refine_series(lake, BARS, some)
    first, last = datetime(2020, 1, 2, tzinfo=UTC), datetime(2020, 2, 29, 23, 59, tzinfo=UTC)
    assert gaps_of(lake) == [(first, last, 59 * 1440, "2020-03")]


def test_a_period_that_comes_in_between_divides_the_gap_and_one_that_goes_joins_it(lake):
    bars = {JANUARY_MS: KLINES, MARCH_MS: KLINES.replace("01-01", "03-01")}
    for day, key in bars.items():
        bring_in(lake, key, lines(*(kline(n, day=day) for n in range(1440))))
    refine_series(lake, BARS, [date(2020, 1, 1), date(2020, 3, 1)])
    february = KLINES.replace("01-01", "02-01")
    bring_in(lake, february, lines(*(kline(n, day=FEBRUARY_MS) for n in range(1440))))
    refine_series(lake, BARS, [date(2020, 2, 1)])
    assert [(missing, period) for _, _, missing, period in gaps_of(lake)] == [
        (30 * 1440, "2020-02"),
        (28 * 1440, "2020-03"),
    ]
    bring_in(lake, february, lines(kline(0, day=MARCH_MS + 40 * DAY_MS)))  # it is another day's now
    refine_series(lake, BARS, [date(2020, 2, 1)])
    assert [(missing, period) for _, _, missing, period in gaps_of(lake)] == [(59 * 1440, "2020-03")]


def test_the_gap_between_two_periods_does_not_count_the_ends_of_their_days_twice(lake):
    bring_in(
        lake,
        KLINES.replace("01-01", "01-31"),
        lines(*(kline(n, day=FEBRUARY_MS - DAY_MS) for n in range(1439))),
    )
    bring_in(
        lake, KLINES.replace("01-01", "02-01"), lines(*(kline(n, day=FEBRUARY_MS) for n in range(1, 1440)))
    )
    refine_series(lake, BARS, [date(2020, 1, 31), date(2020, 2, 1)])
    assert [missing for _, _, missing, _ in gaps_of(lake)] == [1, 1]


def test_bars_of_a_month_have_gaps(lake):
    key = "data/spot/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2020-{month:02}.zip"
    for month, start in ((1, JANUARY_MS), (3, MARCH_MS)):
        bring_in(lake, key.format(month=month), lines(kline(0, day=start)))
    series = Series(venue="binance", market="spot", data_type="klines", symbol="BTCUSDT", interval="1mo")
    refine_series(lake, series, [date(2020, 1, 1), date(2020, 3, 1)])
    february = datetime(2020, 2, 1, tzinfo=UTC)
    assert gaps_of(lake) == [(february, february, 1, "2020-03")]


def test_trade_numbers_that_are_missing_between_two_days_are_known(lake):
    bring_in(lake, TRADES, lines(trade(1, MAY_8_MS), trade(2, MAY_8_MS + 1)))
    bring_in(lake, MAY_9, lines(trade(7, MAY_8_MS + DAY_MS), trade(8, MAY_8_MS + DAY_MS + 1)))
    for day in (date(2026, 5, 9), date(2026, 5, 8)):
        refine_series(lake, SWAPS, [day])
    assert table(lake, "gaps").select("first_id", "last_id", "missing").rows() == [(3, 6, 4)]


def test_fundings_just_before_new_year_are_in_one_period_and_gaps_across_it_are_known(lake):
    new_year, hour = 1_767_225_600_000, 3_600_000
    december = FUNDING.replace("2026-04", "2025-12")
    january = FUNDING.replace("2026-04", "2026-01")
    bring_in(lake, december, lines(f"{new_year - 8 * hour},8,0.0001", f"{new_year - 2},8,0.0001"))
    bring_in(lake, january, lines(f"{new_year + 16 * hour},8,0.0001"))
    for day in (date(2025, 12, 31), date(2026, 1, 1)):
        refine_series(lake, FUNDINGS, [day])
    rows = table(lake, "silver/funding_rates").sort("calc_time")
    assert rows.height == 3
    assert [(gap[0], gap[2]) for gap in gaps_of(lake)] == [(datetime(2026, 1, 1, 8, tzinfo=UTC), 1)]


@pytest.mark.parametrize("at_once", [7, 40, 1_000])
def test_windows_change_nothing(lake, monkeypatch, at_once):
    """Daily and monthly files of the same trades, refined in one window or in many."""
    day = [trade(n, MAY_8_MS + n * 60_000, price="0" if n % 50 == 3 else "1") for n in range(100) if n % 9]
    other = [trade(n, MAY_8_MS + n * 60_000, price="2") for n in range(50, 120)]
    bring_in(lake, TRADES, lines(*day))
    monthly = TRADES.replace("/daily/", "/monthly/").replace("2026-05-08", "2026-05")
    bring_in(lake, monthly, lines(*other))
    monkeypatch.setattr(bronze_rows, "ROWS_AT_ONCE", 1_000_000)
    whole = refine_series(lake, SWAPS, MAY_8)
    rows, rejected = table(lake, "silver/agg_trades"), quarantine(lake).drop("quarantined_at")
    monkeypatch.setattr(bronze_rows, "ROWS_AT_ONCE", at_once)
    windowed = refine_series(lake, SWAPS, MAY_8)
    assert replace(windowed, version=0) == replace(whole, version=0)
    assert table(lake, "silver/agg_trades").equals(rows)
    order = ["source_key", "row_number"]
    assert quarantine(lake).drop("quarantined_at").sort(order).equals(rejected.sort(order))


def test_of_many_rejected_rows_some_are_kept_and_all_are_counted(lake, monkeypatch):
    monkeypatch.setattr(silver, "REJECTED_AT_ONCE", 10)
    bring_in(lake, KLINES, lines(kline(0), *(kline(n, high="0.5") for n in range(1, 31))))
    done = refine_series(lake, BARS, JANUARY)
    assert (done.rows, done.rejected) == (1, 30)
    assert quarantine(lake).height == 10


@pytest.mark.parametrize(("interval", "step"), [("1w", 7), ("3d", 3), ("1d", 1)])
def test_long_bars_have_gaps_by_their_own_step(lake, interval, step):
    key = f"data/spot/monthly/klines/BTCUSDT/{interval}/BTCUSDT-{interval}-2020-01.zip"
    bring_in(lake, key, lines(*(kline(n * step * 1440) for n in (0, 1, 3))))
    series = Series(venue="binance", market="spot", data_type="klines", symbol="BTCUSDT", interval=interval)
    (gap,) = refine_series(lake, series, JANUARY).gaps
    assert (gap.first, gap.missing) == (datetime(2020, 1, 1 + 2 * step, tzinfo=UTC), 1)


def test_a_period_without_rows_is_empty_and_no_error(lake):
    done = refine_series(lake, BARS, JANUARY)
    assert (done.rows, done.gaps) == (0, ())
    bring_in(lake, KLINES, lines(kline(0)))
    refine_series(lake, BARS, JANUARY)
    bring_in(lake, KLINES, lines(kline(0, day=1_577_836_800_000 + 40 * DAY_MS)))
    assert refine_series(lake, BARS, JANUARY).rows == 0
    assert table(lake, "silver/candles").height == 0


def test_whoever_commits_later_has_read_bronze_later(lake, monkeypatch):
    bring_in(lake, KLINES, lines(kline(0)))
    read = BronzeRows.read
    overtaken = []

    def overtaken_once(self, *where):
        rows = read(self, *where)
        if not overtaken:
            overtaken.append(True)
            bring_in(lake, KLINES, lines(kline(0), kline(1)))
            assert refine_series(lake, BARS, JANUARY).rows == 2
        return rows

    monkeypatch.setattr(BronzeRows, "read", overtaken_once)
    assert refine_series(lake, BARS, JANUARY).rows == 2
    assert table(lake, "silver/candles").height == 2


def test_a_large_period_is_written_in_row_groups(lake, monkeypatch):
    monkeypatch.setattr(bronze_rows, "ROWS_AT_ONCE", 500)
    bring_in(lake, KLINES)
    assert refine_series(lake, BARS, JANUARY).rows == 1440
    assert table(lake, "silver/candles").height == 1440
