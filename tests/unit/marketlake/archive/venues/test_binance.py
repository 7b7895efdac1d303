from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketlake.archive.venues.binance import Binance
from marketlake.domain.archive import Frequency, Selection
from marketlake.domain.venue import (
    Availability,
    KeyFields,
    SelectionError,
    UnknownVenueError,
    installed_venues,
    load_venue,
)

VENUE = Binance()


def fields(market: str, data_type: str, symbol: str, interval: str | None, day: str) -> KeyFields:
    parts = [int(part) for part in day.split("-")]
    start = date(parts[0], parts[1], parts[2] if len(parts) == 3 else 1)
    last = date(start.year + start.month // 12, start.month % 12 + 1, 1).toordinal() - 1
    return KeyFields(
        market=market,
        data_type=data_type,
        symbol=symbol,
        interval=interval,
        frequency=Frequency.DAILY if len(parts) == 3 else Frequency.MONTHLY,
        start=start,
        end=start if len(parts) == 3 else date.fromordinal(last),
    )


def prefixes(**selected: object) -> list[tuple[str | None, ...]]:
    return [pattern.segments for pattern in VENUE.patterns(Selection(venue="binance", **selected))]


def test_the_catalogue_holds_27_published_pairs_and_2_that_never_were():
    published = [dataset for dataset in VENUE.datasets() if dataset.frequencies]
    absent = [d for d in VENUE.datasets() if d.availability is Availability.NEVER_PUBLISHED]
    assert len(published) == 27
    assert {(d.market, d.data_type) for d in absent} == {("spot", "bookDepth"), ("spot", "bookTicker")}


def test_only_spot_has_one_second_bars():
    for dataset in VENUE.datasets():
        assert ("1s" in dataset.intervals) == (dataset.market == "spot" and dataset.data_type == "klines")


@pytest.mark.parametrize(
    ("market", "data_type", "symbol", "interval", "day", "key"),
    [
        ("spot", "klines", "BTCUSDT", "1m", "2020-01-02",
         "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-02.zip"),
        ("spot", "klines", "BTCUSDT", "1mo", "2020-12",
         "data/spot/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2020-12.zip"),
        ("spot", "trades", "ETHBTC", None, "2020-08",
         "data/spot/monthly/trades/ETHBTC/ETHBTC-trades-2020-8.zip"),
        ("spot", "trades", "ETHBTC", None, "2019-02",
         "/data/spot/monthly/trades/ETHBTC/ETHBTC-trades-2019-02.zip"),
        ("um", "aggTrades", "BTCUSDT_260925", None, "2026-01-01",
         "data/futures/um/daily/aggTrades/BTCUSDT_260925/BTCUSDT_260925-aggTrades-2026-01-01.zip"),
        ("um", "fundingRate", "币安人生USDT", None, "2026-04",
         "data/futures/um/monthly/fundingRate/币安人生USDT/币安人生USDT-fundingRate-2026-04.zip"),
        ("um", "klines", "ICPUSDT_SETTLED", "3m", "2022-06-10",
         "data/futures/um/daily/klines/ICPUSDT_SETTLED/3m/ICPUSDT_SETTLED-3m-2022-06-10.zip"),
        ("cm", "indexPriceKlines", "BTCUSD", "1h", "2024-02-29",
         "data/futures/cm/daily/indexPriceKlines/BTCUSD/1h/BTCUSD-1h-2024-02-29.zip"),
        ("option", "EOHSummary", "BTCUSDT", None, "2023-05-18",
         "data/option/daily/EOHSummary/BTCUSDT/BTCUSDT-EOHSummary-2023-05-18.zip"),
        ("um", "liquidationSnapshot", "BTCUSDT", None, "2024-03-31",
         "data3/liquidationSnapshot/BTCUSDT/BTCUSDT-liquidationSnapshot-2024-03-31.zip"),
        ("um", "liquidationSnapshot", "BTCUSDT", None, "2024-03-31",
         "data3/liquidationSnapshot/um/daily/X/BTCUSDT-liquidationSnapshot-2024-03-31.zip"),
    ],
)  # fmt: skip
def test_a_key_tells_what_the_file_holds(market, data_type, symbol, interval, day, key):
    assert VENUE.parse_key(key) == fields(market, data_type, symbol, interval, day)


@pytest.mark.parametrize(
    "key",
    [
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-02.zip.CHECKSUM",
        "data/spot/daily/klines/BTCUSDT/1m/ETHUSDT-1m-2020-01-02.zip",
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-5m-2020-01-02.zip",
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-02-30.zip",
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-02.zip",
        "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2020-13.zip",
        "data/spot/daily/bookTicker/BTCUSDT/BTCUSDT-bookTicker-2023-01-01.zip",
        "data3/liquidationSnapshot/BTCUSDT/BTCUSDT-liquidationSnapshot-2024-13-31.zip",
        "data2/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-02.zip",
        "data/futures/um/daily/trades/../..-trades-2020-01-02.zip",
        "index.html",
    ],
)
def test_whatever_is_no_archive_file_is_passed_over(key):
    assert VENUE.parse_key(key) is None


@given(
    dataset=st.sampled_from([d for d in VENUE.datasets() if d.frequencies]),
    symbol=st.text("ABCXYZ0123456789_币", min_size=1, max_size=12),
    day=st.dates(date(2017, 8, 1), date(2035, 12, 31)),
    data=st.data(),
)
def test_keys_that_are_built_are_read_back(dataset, symbol, day, data):
    frequency = data.draw(st.sampled_from(dataset.frequencies))
    interval = data.draw(st.sampled_from(dataset.intervals)) if dataset.intervals else None
    text = day.isoformat() if frequency is Frequency.DAILY else day.isoformat()[:7]
    built = fields(dataset.market, dataset.data_type, symbol, interval, text)
    assert VENUE.parse_key(VENUE.build_key(built)) == built


def test_a_full_selection_asks_the_bucket_nothing():
    found = prefixes(
        market="spot", data_type="klines", interval="1m", symbols=("BTCUSDT",), frequency=Frequency.DAILY
    )
    assert found == [("data/spot/daily/klines/", "BTCUSDT/", "1m/")]


def test_symbols_and_intervals_that_are_not_given_are_left_to_the_bucket():
    found = prefixes(market="um", data_type="klines", frequency=Frequency.DAILY)
    assert found == [("data/futures/um/daily/klines/", None, None)]


def test_older_monthly_spot_files_lie_behind_a_slash():
    found = prefixes(market="spot", data_type="aggTrades", symbols=("BTCUSDT",), frequency=Frequency.MONTHLY)
    assert found == [
        ("data/spot/monthly/aggTrades/", "BTCUSDT/"),
        ("/data/spot/monthly/aggTrades/", "BTCUSDT/"),
    ]


def test_withdrawn_snapshots_are_looked_for_where_they_moved():
    found = prefixes(market="um", data_type="liquidationSnapshot")
    assert ("data3/liquidationSnapshot/",) in found


def test_an_interval_that_is_monthly_only_is_not_looked_for_in_daily_files():
    found = prefixes(market="um", data_type="klines", interval="1w", symbols=("BTCUSDT",))
    assert found == [("data/futures/um/monthly/klines/", "BTCUSDT/", "1w/")]


def test_an_interval_alone_means_every_type_that_has_it():
    heads = {segments[0] for segments in prefixes(market="cm", interval="1h")}
    assert heads == {
        f"data/futures/cm/{frequency}/{data_type}/"
        for frequency in ("daily", "monthly")
        for data_type in ("klines", "indexPriceKlines", "markPriceKlines", "premiumIndexKlines")
    }


def test_what_was_never_published_has_nowhere_to_look_and_is_no_error():
    assert prefixes(market="spot", data_type="bookDepth") == []


@pytest.mark.parametrize(
    ("selected", "message"),
    [
        ({"market": "margin"}, "has no market 'margin'; it has: cm, option, spot, um"),
        (
            {"market": "spot", "data_type": "metrics"},
            "binance spot has no data type 'metrics'; it has: .*klines",
        ),
        ({"data_type": "nonsense"}, "binance has no data type 'nonsense'"),
        ({"market": "spot", "data_type": "klines", "interval": "1M"}, "no interval '1M'; it has: .*1mo"),
        ({"market": "um", "data_type": "klines", "interval": "1s"}, "no interval '1s'"),
        ({"market": "spot", "data_type": "trades", "interval": "1m"}, "no intervals at all: leave it out"),
    ],
)
def test_a_selection_that_cannot_be_is_refused_with_what_there_is(selected, message):
    with pytest.raises(SelectionError, match=message):
        prefixes(**selected)


def selection(start: str | None, end: str | None) -> Selection:
    return Selection(
        venue="binance",
        start=start and date.fromisoformat(start),
        end=end and date.fromisoformat(end),
    )


def test_a_daily_listing_starts_just_before_the_first_day_and_ends_behind_the_last():
    folder = "data/spot/daily/klines/BTCUSDT/1m/"
    found = VENUE.key_range(folder, selection("2020-01-05", "2020-02-01"))
    assert found.marker < f"{folder}BTCUSDT-1m-2020-01-05.zip"
    assert found.marker > f"{folder}BTCUSDT-1m-2020-01-04.zip.CHECKSUM"
    assert f"{folder}BTCUSDT-1m-2020-02-01.zip.CHECKSUM" < found.last < f"{folder}BTCUSDT-1m-2020-02-02.zip"


def test_a_monthly_listing_does_not_miss_the_unpadded_month():
    folder = "data/futures/um/monthly/trades/BTCUSDT/"
    found = VENUE.key_range(folder, selection("2020-08-15", "2020-08-20"))
    for month in ("2020-08", "2020-8"):
        assert found.marker < f"{folder}BTCUSDT-trades-{month}.zip" < found.last
    assert found.last < f"{folder}BTCUSDT-trades-2021-01.zip"


def test_a_listing_without_days_is_read_whole():
    found = VENUE.key_range("/data/spot/monthly/trades/BTCUSDT/", selection(None, None))
    assert (found.marker, found.last) == (None, None)


def test_the_folder_of_moved_snapshots_is_read_whole():
    found = VENUE.key_range("data3/liquidationSnapshot/", selection("2024-01-01", "2024-01-02"))
    assert (found.marker, found.last) == (None, None)


def test_a_venue_is_found_by_its_name():
    assert load_venue("binance").name == "binance"
    assert installed_venues()["binance"] is Binance


def test_an_unknown_venue_is_refused_with_those_that_are_installed():
    with pytest.raises(UnknownVenueError, match="no venue 'mtgox'; installed are: binance"):
        load_venue("mtgox")
