from dataclasses import replace
from datetime import UTC, date, datetime
from threading import Thread

import pytest
from deltalake import DeltaTable
from marketlake.archive.discovery.catalogue import Catalogue, DayRange, Recorded
from marketlake.domain.archive import Frequency, Selection
from marketlake.infrastructure.storage.errors import StorageError
from marketlake.infrastructure.storage.stores import Lake
from obstore.store import LocalStore, MemoryStore

from tests.unit.marketlake.pipeline.files import archive_file

ALL = Selection(venue="binance")


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path), LocalStore(tmp_path))


def daily(day, symbol="BTCUSDT", interval="1m"):
    return archive_file(f"data/spot/daily/klines/{symbol}/{interval}/{symbol}-{interval}-{day}.zip")


def monthly(month, symbol="BTCUSDT"):
    return archive_file(f"data/spot/monthly/klines/{symbol}/1m/{symbol}-1m-{month}.zip")


def fundings(month):
    return archive_file(f"data/futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-{month}.zip")


def test_what_was_recorded_comes_back_as_it_was(lake):
    files = [daily("2020-01-01"), daily("2020-01-02", "币安人生USDT"), fundings("2026-04")]
    files[0] = replace(files[0], sidecar_key=f"{files[0].key}.CHECKSUM")
    assert Catalogue(lake).record(iter(files)) == Recorded(new=3, changed=0, unchanged=0)
    found = Catalogue(lake).query(ALL)
    assert sorted(found, key=lambda file: file.key) == sorted(files, key=lambda file: file.key)


def test_recording_again_makes_no_new_version(lake):
    catalogue = Catalogue(lake)
    catalogue.record([daily("2020-01-01")])
    before = DeltaTable(lake.uri("catalogue")).version()
    assert catalogue.record([daily("2020-01-01")]) == Recorded(0, 0, 1)
    assert DeltaTable(lake.uri("catalogue")).version() == before


def test_new_files_join_those_of_their_series_in_one_commit(lake):
    catalogue = Catalogue(lake)
    catalogue.record([daily("2020-01-01"), daily("2020-01-01", "ETHUSDT")])
    before = DeltaTable(lake.uri("catalogue")).version()
    new = [daily("2020-01-01"), daily("2020-01-02"), daily("2020-01-02", "ETHUSDT"), daily("2020-01-01", "X")]
    assert catalogue.record(new) == Recorded(new=3, changed=0, unchanged=1)
    assert DeltaTable(lake.uri("catalogue")).version() == before + 1
    assert len(catalogue.query(ALL)) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"etag": "other"},
        {"size": 77},
        {"last_modified": datetime(2027, 1, 1, tzinfo=UTC)},
        {"sidecar_key": "x.CHECKSUM"},
    ],
)
def test_a_file_that_was_replaced_in_place_is_updated(lake, change):
    catalogue = Catalogue(lake)
    catalogue.record([daily("2020-01-01"), daily("2020-01-02")])
    changed = replace(daily("2020-01-01"), **change)
    assert catalogue.record([changed, daily("2020-01-02")]) == Recorded(new=0, changed=1, unchanged=1)
    assert catalogue.query(ALL) == [changed, daily("2020-01-02")]


def test_a_file_seen_twice_in_one_discovery_is_one(lake):
    assert Catalogue(lake).record([daily("2020-01-01")] * 2) == Recorded(1, 0, 0)


def test_nothing_seen_is_nothing_recorded(lake):
    assert Catalogue(lake).record([]) == Recorded(0, 0, 0)
    assert Catalogue(lake).query(ALL) == []
    assert Catalogue(lake).holdings(ALL) == []


@pytest.mark.parametrize(
    ("selected", "count"),
    [
        ({}, 6),
        ({"market": "um"}, 1),
        ({"data_type": "klines"}, 5),
        ({"data_type": "candles"}, 5),
        ({"data_type": "funding_rates"}, 1),
        ({"data_type": "nonsense"}, 0),
        ({"interval": "1h"}, 1),
        ({"symbols": ("ETHUSDT", "X")}, 1),
        ({"frequency": Frequency.MONTHLY}, 2),
        ({"start": date(2020, 1, 2)}, 3),
        ({"end": date(2020, 1, 1)}, 4),
        ({"start": date(2020, 1, 2), "end": date(2020, 1, 31), "data_type": "klines", "interval": "1m"}, 2),
        ({"market": "cm"}, 0),
    ],
)
def test_files_are_selected_by_what_they_hold(lake, selected, count):
    catalogue = Catalogue(lake)
    catalogue.record(
        [
            daily("2020-01-01"), daily("2020-01-02"), daily("2020-01-01", "ETHUSDT"),
            daily("2020-01-01", interval="1h"), monthly("2020-01"), fundings("2026-04"),
        ]
    )  # fmt: skip
    assert len(catalogue.query(Selection(venue="binance", **selected))) == count
    assert catalogue.query(Selection(venue="bybit")) == []


def test_a_holding_tells_files_bytes_days_and_gaps(lake):
    files = [daily(f"2020-01-{day:02}") for day in (1, 2, 5, 6, 9)]
    Catalogue(lake).record([replace(file, size=10) for file in files])
    (holding,) = Catalogue(lake).holdings(ALL)
    assert (holding.market, holding.data_type, holding.symbol, holding.interval) == (
        "spot",
        "klines",
        "BTCUSDT",
        "1m",
    )
    assert (holding.files, holding.size, holding.first, holding.last) == (
        5,
        50,
        date(2020, 1, 1),
        date(2020, 1, 9),
    )
    assert holding.gaps == (
        DayRange(date(2020, 1, 3), date(2020, 1, 4)),
        DayRange(date(2020, 1, 7), date(2020, 1, 8)),
    )
    assert holding.missing_days == 4
    assert holding.keys == tuple(file.key for file in files)


def test_a_day_that_a_monthly_file_covers_is_no_gap(lake):
    Catalogue(lake).record([daily("2020-01-01"), monthly("2020-02"), monthly("2020-04"), daily("2020-05-03")])
    (holding,) = Catalogue(lake).holdings(ALL)
    assert holding.gaps == (
        DayRange(date(2020, 1, 2), date(2020, 1, 31)),
        DayRange(date(2020, 3, 1), date(2020, 3, 31)),
        DayRange(date(2020, 5, 1), date(2020, 5, 2)),
    )


def test_each_series_is_a_holding_of_its_own(lake):
    Catalogue(lake).record([daily("2020-01-01"), daily("2020-01-03", interval="1h"), fundings("2026-04")])
    holdings = Catalogue(lake).holdings(ALL)
    assert [(h.data_type, h.interval, h.missing_days) for h in holdings] == [
        ("klines", "1h", 0), ("klines", "1m", 0), ("fundingRate", None, 0),
    ]  # fmt: skip


def test_discoveries_at_the_same_time_lose_nothing(lake):
    Catalogue(lake).record([daily("2020-01-01")])
    threads = [
        Thread(
            target=Catalogue(lake).record,
            args=([daily(f"2020-02-{n + 1:02}"), daily("2020-01-01", f"S{n}")],),
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Catalogue(lake).query(ALL)) == 13


def test_a_lake_that_cannot_be_reached_is_said():
    options = {
        "endpoint_url": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b", "region": "x",
        "allow_http": "true", "max_retries": "0", "retry_timeout": "1s",
    }  # fmt: skip
    catalogue = Catalogue(Lake("s3://lake", MemoryStore(), options))
    with pytest.raises(StorageError, match="opening the catalogue"):
        catalogue.query(ALL)
    with pytest.raises(StorageError, match="opening the table catalogue"):
        catalogue.record([daily("2020-01-01")])
