from dataclasses import replace
from datetime import date

from marketlake.archive.collection import refiner
from marketlake.archive.collection.refiner import _by_series, _days, _in_commits, cut

from tests.unit.marketlake.archive.samples import archive_file, ledger_entry


def test_entries_are_refined_series_by_series() -> None:
    entries = [
        ledger_entry(archive_file(day, symbol=symbol)) for day in (2, 1) for symbol in ("ETHUSDT", "BTCUSDT")
    ]
    grouped = _by_series([*entries, replace(entries[0], interval=None)])
    assert [(series.symbol, series.interval, len(group)) for series, group in grouped] == [
        ("BTCUSDT", "1m", 2),
        ("ETHUSDT", None, 1),
        ("ETHUSDT", "1m", 2),
    ]


def test_many_rows_are_refined_in_several_commits_in_order_of_time(monkeypatch) -> None:
    entries = [
        replace(ledger_entry(archive_file(day, symbol=symbol)), rows=rows, first_day=date(2020, 1, day))
        for symbol, day, rows in (
            ("ETHUSDT", 2, 5),
            ("BTCUSDT", 3, 6),
            ("BTCUSDT", 1, 4),
            ("BTCUSDT", 2, 20),
            ("ETHUSDT", 1, 3),
        )
    ]
    monkeypatch.setattr(refiner, "ROWS_OF_A_COMMIT", 10)
    assert [
        [(entry.symbol, entry.first_day.day) for entry in some if entry.first_day]
        for some in _in_commits(entries)
    ] == [[("BTCUSDT", 1)], [("BTCUSDT", 2)], [("BTCUSDT", 3), ("ETHUSDT", 1)], [("ETHUSDT", 2)]]
    assert list(_in_commits([])) == []


def test_the_days_are_those_of_the_rows_and_of_what_they_replaced() -> None:
    first = replace(ledger_entry(archive_file(1)), first_day=date(2020, 1, 1), last_day=date(2020, 1, 3))
    empty = replace(ledger_entry(archive_file(9)), first_day=None, last_day=None)
    assert _days([first, empty], [(date(2019, 12, 31), date(2020, 1, 1))]) == [
        date(2019, 12, 31),
        date(2020, 1, 1),
        date(2020, 1, 2),
        date(2020, 1, 3),
    ]


def test_series_that_share_data_files_are_refined_by_one_task(monkeypatch) -> None:
    monkeypatch.setattr(refiner, "SERIES_AT_ONCE", 3)
    hours = replace(ledger_entry(archive_file(1)).series, interval="1h")
    names = ("ADAUSDT", "AVAXUSDT", "BNBUSDT", "BTCUSDT", "BUSDT", "BXUSDT", "ETHUSDT")
    series = [
        *(replace(hours, symbol=symbol) for symbol in names),
        replace(hours, symbol="AUSDT", interval="5m"),
    ]
    assert [[one.symbol for one in task] for task in cut(dict.fromkeys(series, 24))] == [
        ["ADAUSDT", "AVAXUSDT"],
        ["BNBUSDT", "BTCUSDT", "BUSDT", "BXUSDT"],
        ["ETHUSDT", "AUSDT"],
    ]
    assert list(cut({})) == []


def test_series_of_many_rows_are_refined_by_tasks_of_their_own() -> None:
    trades = replace(ledger_entry(archive_file(1)).series, data_type="aggTrades", interval=None)
    names = ("ADAUSDT", "AVAXUSDT", "BNBUSDT", "BTCUSDT")
    rows = {
        replace(trades, symbol=symbol): rows
        for symbol, rows in zip(names, (400_000, 500_000, 200_000, 9_000_000), strict=True)
    }
    assert [[one.symbol for one in task] for task in cut(rows)] == [
        ["ADAUSDT", "AVAXUSDT"],
        ["BNBUSDT"],
        ["BTCUSDT"],
    ]
