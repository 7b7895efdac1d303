"""Series of few rows share the data files of silver; nobody but the listing of data files can tell."""

import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from deltalake import DeltaTable
from marketlake.domain.archive import Series
from marketlake.infrastructure.storage.delta import data_files
from marketlake.infrastructure.storage.stores import Lake
from marketlake.pipeline.batch import bronze_rows, silver, silver_files
from marketlake.pipeline.batch.silver import refine_many, refine_series
from marketlake.pipeline.batch.silver_files import SilverFiles, initials
from marketlake.pipeline.contracts.tables import table_type
from obstore.store import LocalStore

from tests.unit.marketlake.pipeline.files import FUNDING, bring_in, kline, lines

HOURS = Series(venue="binance", market="spot", data_type="klines", symbol="BTCUSDT", interval="1h")
BNB, ETH = replace(HOURS, symbol="BNBUSDT"), replace(HOURS, symbol="ETHUSDT")
JANUARY, FEBRUARY, MARCH = date(2024, 1, 1), date(2024, 2, 1), date(2024, 3, 1)


def publish(
    lake: Lake, series: Series, day: date, hours: Iterable[int] = range(24), price: str = "2"
) -> None:
    """A daily file of bars of an hour; without hours, of a bar of another year."""
    midnight = (day - date(1970, 1, 1)).days * 86_400_000
    name = f"{series.symbol}-{series.interval}-{day.isoformat()}.zip"
    minutes = [hour * 60 for hour in sorted(hours)] or [800 * 1440]
    bars = (kline(minute, day=midnight, open=price, close=price, low=price, high=price) for minute in minutes)
    bring_in(lake, f"data/spot/daily/klines/{series.symbol}/{series.interval}/{name}", lines(*bars))


def candles(lake: Lake) -> pl.DataFrame:
    return pl.read_delta(lake.uri("silver/candles"))


def live(lake: Lake) -> list[tuple[str, str]]:
    """The first and the last symbol of each data file."""
    files = data_files(DeltaTable(lake.uri("silver/candles")))
    return sorted(files.select("min.symbol", "max.symbol").rows())


def gaps(lake: Lake) -> list[tuple[object, ...]]:
    found = pl.read_delta(lake.uri("gaps")).select("symbol", "period", "first", "last", "missing")
    return sorted(found.rows())


def test_series_share_data_files_by_the_initials_of_their_symbols(lake):
    for series in (HOURS, BNB, ETH):
        publish(lake, series, JANUARY)
    done = refine_many(lake, {key: [JANUARY] for key in (HOURS, BNB, ETH)})
    assert [refined.rows for refined in done] == [24, 24, 24]
    assert live(lake) == [("BNBUSDT", "BTCUSDT"), ("ETHUSDT", "ETHUSDT")]
    (shared,) = (path for path in DeltaTable(lake.uri("silver/candles")).file_uris() if "/B/" in path)
    rows = pl.read_parquet(shared)
    assert rows["symbol"].to_list() == ["BNBUSDT"] * 24 + ["BTCUSDT"] * 24, "together, for narrow row groups"
    assert rows.equals(rows.sort("symbol", "open_time"))


def test_the_rows_of_the_others_are_carried_over(lake):
    publish(lake, BNB, JANUARY, price="3")
    publish(lake, HOURS, JANUARY)
    refine_series(lake, BNB, [JANUARY])
    refine_series(lake, HOURS, [JANUARY])
    before = candles(lake).filter(symbol="BNBUSDT")
    assert live(lake) == [("BNBUSDT", "BTCUSDT")]
    publish(lake, HOURS, JANUARY, range(3), price="5")
    assert refine_series(lake, HOURS, [JANUARY]).rows == 3
    after = candles(lake)
    assert after.filter(symbol="BNBUSDT").equals(before)
    assert after.filter(symbol="BTCUSDT")["close"].to_list() == [5, 5, 5]
    publish(lake, HOURS, JANUARY, [])
    assert refine_series(lake, HOURS, [JANUARY]).rows == 0
    assert candles(lake).equals(before), "no rows of one series are no reason to lose the other's"


def test_carried_rows_are_read_a_few_at_a_time(lake, monkeypatch):
    others = [replace(HOURS, symbol=f"B{number}USDT") for number in range(5)]
    for series in others:
        publish(lake, series, JANUARY)
    refine_many(lake, {key: [JANUARY] for key in others})
    before = candles(lake).filter(pl.col("symbol") != "B2USDT")
    monkeypatch.setattr(bronze_rows, "ROWS_AT_ONCE", 50)
    sizes = []
    read = SilverFiles._read
    monkeypatch.setattr(
        SilverFiles, "_read", lambda self, rows: sizes.append((found := read(self, rows)).height) or found
    )
    publish(lake, others[2], JANUARY, range(2))
    refine_series(lake, others[2], [JANUARY])
    assert sorted(sizes) == [5, 48, 48], "what there is by symbol, and its rows, of two series each"
    after = candles(lake)
    assert after.filter(pl.col("symbol") != "B2USDT").equals(before)
    assert after.filter(symbol="B2USDT").height == 2
    (path,) = DeltaTable(lake.uri("silver/candles")).file_uris()
    assert pl.read_parquet(path)["symbol"].is_sorted()


@pytest.mark.parametrize(
    ("data_type", "interval", "shared"),
    [
        ("klines", "1s", "BTCUSDT"),
        ("klines", "1m", "BT"),
        ("klines", "5m", "B"),
        ("klines", "1mo", "B"),
        ("aggTrades", None, "BTCUSDT"),
        ("fundingRate", None, "B"),
    ],
)
def test_how_many_share_a_data_file_depends_on_how_many_rows_a_period_can_have(data_type, interval, shared):
    series = Series(venue="binance", market="um", data_type=data_type, symbol="BTCUSDT", interval=interval)
    assert initials(table_type("binance", "um", data_type).silver, series) == shared


def test_fundings_share_data_files_of_a_year(lake):
    for symbol in ("BTCUSDT", "BNBUSDT"):
        start = 1_775_001_600_000  # 2026-04-01
        bring_in(
            lake,
            FUNDING.replace("BTCUSDT", symbol),
            lines(*(f"{start + at * 3_600_000},8,0.0001" for at in (0, 8, 24))),
        )
        series = Series(venue="binance", market="um", data_type="fundingRate", symbol=symbol, interval=None)
        refine_series(lake, series, [date(2026, 4, 1)])
    table = DeltaTable(lake.uri("silver/funding_rates"))
    assert len(table.file_uris()) == 1
    assert pl.read_delta(table)["symbol"].value_counts().sort("symbol").rows() == [
        ("BNBUSDT", 3),
        ("BTCUSDT", 3),
    ]
    assert [gap[:2] for gap in gaps(lake)] == [("BNBUSDT", "2026"), ("BTCUSDT", "2026")]


def test_data_files_of_one_series_each_as_former_versions_wrote_them_are_taken_in(lake, monkeypatch):
    for series in (BNB, HOURS, ETH):
        publish(lake, series, JANUARY)
    with monkeypatch.context() as former:
        former.setattr(silver_files, "_SHARED_BY", ())
        refine_many(lake, dict.fromkeys((BNB, HOURS, ETH), (JANUARY,)))
    before = candles(lake)
    assert len(live(lake)) == 3
    publish(lake, HOURS, JANUARY, range(20), price="7")
    refine_series(lake, HOURS, [JANUARY])
    assert live(lake) == [("BNBUSDT", "BTCUSDT"), ("ETHUSDT", "ETHUSDT")]
    after = candles(lake)
    others = pl.col("symbol") != "BTCUSDT"
    order = ["symbol", "open_time"]
    assert after.filter(others).sort(order).equals(before.filter(others).sort(order))
    assert after.filter(symbol="BTCUSDT")["close"].to_list() == [7] * 20


def test_gaps_between_periods_are_known_where_series_share_data_files(lake):
    for series in (BNB, HOURS):
        publish(lake, series, date(2024, 1, 31))
        refine_series(lake, series, [JANUARY])
    publish(lake, HOURS, date(2024, 2, 1))
    refine_series(lake, HOURS, [FEBRUARY])
    assert gaps(lake) == []
    publish(lake, BNB, date(2024, 3, 1))
    publish(lake, HOURS, date(2024, 3, 2))
    refine_many(lake, {BNB: [MARCH], HOURS: [MARCH]})
    february, march = datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)
    hour = timedelta(hours=1)
    assert gaps(lake) == [
        ("BNBUSDT", "2024-03", february, march - hour, 29 * 24),
        ("BTCUSDT", "2024-03", february + 24 * hour, march + 23 * hour, 29 * 24),
    ]


def test_a_border_that_did_not_change_is_not_looked_at_again(lake, monkeypatch):
    """Else a symbol without a past would have all data files searched for it, each day."""
    publish(lake, BNB, date(2024, 1, 31))
    publish(lake, HOURS, date(2024, 1, 31))
    refine_many(lake, {BNB: [JANUARY], HOURS: [JANUARY]})
    publish(lake, BNB, date(2024, 2, 3))
    publish(lake, HOURS, date(2024, 2, 1))
    refine_many(lake, {BNB: [FEBRUARY], HOURS: [FEBRUARY]})
    before = gaps(lake)
    assert [gap[0] for gap in before] == ["BNBUSDT"]
    read = []
    counted = SilverFiles._counted
    monkeypatch.setattr(SilverFiles, "_counted", lambda self, path: read.append(path) or counted(self, path))
    publish(lake, BNB, date(2024, 2, 4))
    refine_series(lake, BNB, [FEBRUARY])
    assert gaps(lake) == before
    assert len(read) == 1, "the file that is replaced, not January's"


def overtake(monkeypatch: pytest.MonkeyPatch, refine: Callable[[], object]) -> list[bool]:
    """Let another writer commit once, right before the next commit to silver; tells whether it did."""
    note = silver._note_gaps
    overtaken: list[bool] = []

    def overtaken_once(lake, rewritings):
        note(lake, rewritings)
        if not overtaken:
            overtaken.append(True)
            refine()

    monkeypatch.setattr(silver, "_note_gaps", overtaken_once)
    return overtaken


def test_what_another_writer_did_meanwhile_is_carried_over(lake, monkeypatch):
    publish(lake, BNB, JANUARY)
    publish(lake, HOURS, JANUARY)
    overtaken = overtake(monkeypatch, lambda: refine_series(lake, BNB, [JANUARY]))
    refine_series(lake, HOURS, [JANUARY])
    assert overtaken
    assert candles(lake)["symbol"].value_counts().sort("symbol").rows() == [("BNBUSDT", 24), ("BTCUSDT", 24)]
    assert live(lake) == [("BNBUSDT", "BTCUSDT")]


def test_a_worker_of_a_former_version_that_is_still_at_work_doubles_no_row(lake, monkeypatch):
    publish(lake, BNB, JANUARY)
    publish(lake, HOURS, JANUARY)
    refine_series(lake, BNB, [JANUARY])

    def as_formerly() -> None:
        with monkeypatch.context() as former:
            former.setattr(silver_files, "_SHARED_BY", ())
            refine_series(lake, HOURS, [JANUARY])

    overtaken = overtake(monkeypatch, as_formerly)
    refine_series(lake, HOURS, [JANUARY])
    assert overtaken
    assert candles(lake)["symbol"].value_counts().sort("symbol").rows() == [("BNBUSDT", 24), ("BTCUSDT", 24)]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_refined_in_whichever_order_all_comes_out_as_if_at_once(
    lake, tmp_path, monkeypatch, seed
):
    drawn = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    monkeypatch.setattr(bronze_rows, "ROWS_AT_ONCE", drawn.choice([20, 60, 250_000]))
    series = [replace(HOURS, symbol=symbol) for symbol in ("BNBUSDT", "BTCUSDT", "BUSDT", "ETHUSDT")]
    days = [JANUARY + timedelta(days=number) for number in (0, 1, 30, 31, 32, 59, 60, 61, 92)]
    wanted: dict[Series, set[date]] = {}
    for _ in range(12):
        for one in drawn.sample(series, drawn.randint(1, 3)):
            day = drawn.choice(days)
            hours = drawn.sample(range(24), drawn.choice([0, 3, 20, 24]))
            publish(lake, one, day, hours, price=str(drawn.randint(1, 9)))
            wanted.setdefault(one, set()).add(day)
        now: Sequence[Series] = drawn.sample(sorted(wanted, key=str), drawn.randint(1, len(wanted)))
        refine_many(lake, {one: sorted(wanted.pop(one)) for one in now})
    if wanted:
        refine_many(lake, {one: sorted(some) for one, some in wanted.items()})
    folder = tmp_path / "anew"
    shutil.copytree(lake.uri("bronze"), folder / "bronze")
    anew = Lake(str(folder), LocalStore(folder))
    for one in series:
        refine_series(anew, one, days)
    order = ["symbol", "open_time"]
    assert candles(lake).sort(order).equals(candles(anew).sort(order))
    assert gaps(lake) == gaps(anew)
    assert len(live(lake)) <= 4 * 2
