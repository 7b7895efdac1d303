"""Files that are ingested together become what they become one by one."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import obstore
import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import example, given, settings
from hypothesis import strategies as st
from marketlake.infrastructure.storage.delta import DataFile
from marketlake.infrastructure.storage.errors import StorageError
from marketlake.infrastructure.storage.stores import Lake
from marketlake.pipeline.contracts.tables import file_columns
from marketlake.pipeline.ingest import bronze
from marketlake.pipeline.ingest.bronze import Bronze, FileRows, LandedFile
from marketlake.pipeline.ingest.csv_parser import CsvParser
from marketlake.pipeline.ingest.errors import CorruptZipError, SchemaChangedError
from marketlake.sync.errors import EmptyFileError, NotAZipError
from obstore.store import LocalStore, MemoryStore

from tests.unit.marketlake.pipeline.files import (
    KLINES,
    LIMITS,
    archive_file,
    bring_in,
    commit,
    kline,
    lines,
    written,
    zipped,
)

TABLE = "bronze/binance_klines"
HEADER = ",".join(file_columns(archive_file(KLINES)))
FIRST_DAY = 1_577_836_800_000
DAY_MS = 86_400_000


def key(day: int, symbol: str = "BTCUSDT") -> str:
    """A daily file of January 2020."""
    return KLINES.replace("BTCUSDT", symbol).replace("01-01.zip", f"01-{day:02}.zip")


def bars(day: int, *minutes: int, **changed: str) -> list[str]:
    return [kline(minute, day=FIRST_DAY + (day - 1) * DAY_MS, **changed) for minute in minutes]


def in_microseconds(day: int) -> list[str]:
    start = FIRST_DAY + (day - 1) * DAY_MS
    return bars(day, 0, open_time=f"{start}000", close_time=f"{start + 59_999}999")


def broken(body: bytes) -> bytes:
    spoilt = bytearray(body)
    spoilt[len(spoilt) // 3] ^= 0x55
    return bytes(spoilt)


ZIPS: dict[str, Callable[[int], bytes]] = {
    "one row": lambda day: zipped(lines(*bars(day, 0))),
    "rows out of order": lambda day: zipped(lines(*bars(day, 9, 3, 1439))),
    "a header": lambda day: zipped(lines(HEADER, *bars(day, 0, 1))),
    "a quoted header": lambda day: zipped(lines(f'"{HEADER.replace(",", chr(34) + "," + chr(34))}"', *bars(day, 2))),
    "a header only": lambda _: zipped(lines(HEADER)),
    "no final newline": lambda day: zipped("\n".join(bars(day, 0, 1, 2))),
    "a header without newline": lambda _: zipped(HEADER),
    "lines of DOS": lambda day: zipped("\r\n".join([*bars(day, 0, 1), ""])),
    "a byte order mark": lambda day: zipped(b"\xef\xbb\xbf" + lines(HEADER, *bars(day, 0)).encode()),
    "a mark and no header": lambda day: zipped(b"\xef\xbb\xbf" + lines(*bars(day, 0, 1)).encode()),
    "a blank line": lambda day: zipped(lines(*bars(day, 0), "", *bars(day, 1))),
    "a blank line at the end": lambda day: zipped(lines(*bars(day, 0), "")),
    "a bad row": lambda day: zipped(lines(*bars(day, 0), "bad", *bars(day, 2))),
    "a bad last row": lambda day: zipped(lines(*bars(day, 0)) + "1,2"),
    "a short row": lambda day: zipped(lines(*bars(day, 0), bars(day, 1)[0].removesuffix(",0"))),
    "microseconds": lambda day: zipped(lines(*in_microseconds(day))),
    "an unknown column": lambda day: zipped(lines(*(f"{row},1" for row in bars(day, 0)))),
    "another header": lambda day: zipped(lines("time,price", *bars(day, 0))),
    "blank": lambda _: zipped(" \n"),
    "no byte": lambda _: zipped(""),
    "a broken zip": lambda day: broken(zipped(lines(*bars(day, *range(200))))),
    "no zip": lambda _: b"PK no zip",
}  # fmt: skip
LASTING = {"an unknown column", "another header", "blank", "no byte", "a broken zip", "no zip"}


@contextmanager
def fresh_lake() -> Iterator[Lake]:
    with tempfile.TemporaryDirectory() as folder:
        yield Lake(folder, LocalStore(folder))


def rows_of(lake: Lake, data_file: DataFile | None) -> list[tuple[object, ...]]:
    """A data file's rows in their order."""
    if data_file is None:
        return []
    frame = pl.read_parquet(f"{lake.uri(TABLE)}/{data_file.key}")
    assert frame.height == data_file.rows
    return frame.rows()


def quarantined(lake: Lake) -> list[tuple[object, ...]]:
    uri = lake.uri("quarantine")
    if not DeltaTable.is_deltatable(uri):
        return []
    rows = pl.read_delta(uri).drop("quarantined_at")
    return sorted(rows.rows(), key=str)


@settings(max_examples=25)
@given(kinds=st.lists(st.sampled_from(sorted(ZIPS)), min_size=2, max_size=6))
@example(kinds=["one row", "a header", "no final newline", "rows out of order", "microseconds"])
@example(kinds=["one row", "a bad row", "a broken zip", "one row"])
@example(kinds=["a header only", "a header without newline"])
@example(kinds=["no final newline", "a mark and no header"])
@example(kinds=sorted(LASTING))
def test_files_become_the_same_rows_together_as_one_by_one(kinds: Sequence[str]) -> None:
    zips = {key(day): ZIPS[kind](day) for day, kind in enumerate(kinds, 1)}
    with fresh_lake() as lake:
        together = written(lake, zips)
        rows, bad = rows_of(lake, together.data_file), quarantined(lake)
    one_by_one: list[tuple[object, ...]] = []
    files: dict[str, FileRows] = {}
    failures: dict[str, Exception] = {}
    with fresh_lake() as lake:
        for name, body in zips.items():
            alone = written(lake, {name: body})
            one_by_one += rows_of(lake, alone.data_file)
            files.update(alone.files)
            failures.update(alone.failures)
        assert bad == quarantined(lake)
    assert rows == one_by_one
    assert together.files == files
    assert {name: (type(error), str(error)) for name, error in together.failures.items()} == {
        name: (type(error), str(error)) for name, error in failures.items()
    }
    assert set(failures) == {name for name, kind in zip(zips, kinds, strict=True) if kind in LASTING}


def test_good_files_are_parsed_at_once_and_become_one_row_group(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed_alone(*_: object) -> None:
        raise AssertionError("a good file is parsed by itself")

    monkeypatch.setattr(CsvParser, "parse", parsed_alone)
    good = ["one row", "rows out of order", "a header", "a quoted header", "no final newline", "lines of DOS"]
    done = written(lake, {key(day): ZIPS[kind](day) for day, kind in enumerate(good, 1)})
    assert done.data_file is not None
    assert list(done.files) == [key(day) for day in range(1, 7)]
    assert pq.ParquetFile(f"{lake.uri(TABLE)}/{done.data_file.key}").num_row_groups == 1


def test_each_row_has_the_labels_and_the_number_of_its_file(lake: Lake) -> None:
    names = [key(1, "BTCUSDT"), key(2, "BTCUSDT"), key(1, "币安人生USDT")]
    texts = [lines(*bars(1, 0, 1)), lines(*bars(2, 0)), lines(*bars(1, 0))]
    done = written(lake, {name: zipped(text) for name, text in zip(names, texts, strict=True)})
    commit(lake, TABLE, done.data_file)
    rows = pl.read_delta(lake.uri(TABLE)).select(
        "symbol", "interval", "source_key", "row_number", "open_time"
    )
    assert [row[:4] for row in rows.rows()] == [
        ("BTCUSDT", "1m", names[0], 1),
        ("BTCUSDT", "1m", names[0], 2),
        ("BTCUSDT", "1m", names[1], 1),
        ("币安人生USDT", "1m", names[2], 1),
    ]
    assert done.files[names[1]] == FileRows(1, 0, date(2020, 1, 2), date(2020, 1, 2), header=False)
    (action,) = pl.DataFrame(DeltaTable(lake.uri(TABLE)).get_add_actions(flatten=True)).rows(named=True)
    assert (action["min.source_key"], action["max.source_key"]) == (min(names), max(names))
    assert (action["min.symbol"], action["max.symbol"]) == ("BTCUSDT", "币安人生USDT")
    assert isinstance(action["max.open_time"], datetime)
    assert action["max.open_time"].date() == date(2020, 1, 2)


def test_a_file_that_fails_leaves_no_row_and_takes_no_other_with_it(lake: Lake) -> None:
    kinds = ["one row", "a broken zip", "no byte", "a bad row", "another header", "no zip", "one row"]
    done = written(lake, {key(day): ZIPS[kind](day) for day, kind in enumerate(kinds, 1)})
    assert {name: type(error) for name, error in done.failures.items()} == {
        key(2): CorruptZipError, key(3): EmptyFileError, key(5): SchemaChangedError, key(6): NotAZipError,
    }  # fmt: skip
    assert sorted(done.files) == [key(1), key(4), key(7)]
    commit(lake, TABLE, done.data_file)
    rows = pl.read_delta(lake.uri(TABLE))
    assert rows["source_key"].to_list() == [key(1), key(4), key(4), key(7)]


def test_files_that_all_fail_are_no_data_file(lake: Lake, tmp_path: Path) -> None:
    done = written(lake, {key(1): ZIPS["a broken zip"](1), key(2): ZIPS["blank"](2)})
    assert done.data_file is None
    assert not done.files
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_file_that_fails_keeps_the_quarantine_of_its_former_version(lake: Lake) -> None:
    bring_in(lake, key(1), lines(*bars(1, 0), "bad"))
    landed = [
        LandedFile(archive_file(key(1)), "k", ZIPS["blank"](1), was_quarantined=True),
        LandedFile(archive_file(key(2)), "k", ZIPS["one row"](2)),
    ]
    Bronze(lake, MemoryStore(), LIMITS).ingest(landed, "name")
    assert [row[7] for row in quarantined(lake)] == [key(1)]


def test_larger_files_among_small_ones_keep_their_place(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bronze, "TOGETHER", 1_000)
    monkeypatch.setattr(bronze, "BATCH", 2_000)
    sizes = [1, 60, 2, 80, 1, 5, 5, 5, 5, 1]
    zips = {key(day): zipped(lines(*bars(day, *range(count)))) for day, count in enumerate(sizes, 1)}
    done = written(lake, zips)
    assert done.data_file is not None
    frame = pl.read_parquet(f"{lake.uri(TABLE)}/{done.data_file.key}")
    expected = [(key(day), number) for day, count in enumerate(sizes, 1) for number in range(1, count + 1)]
    assert frame.select("source_key", "row_number").rows() == expected


def test_files_in_landing_are_ingested_with_those_in_memory(lake: Lake) -> None:
    landing = MemoryStore()
    obstore.put(landing, "stored.zip", ZIPS["a header"](1))
    landed = [
        LandedFile(archive_file(key(1)), "stored.zip", None),
        LandedFile(archive_file(key(2)), "not there", ZIPS["one row"](2)),
    ]
    done = Bronze(lake, landing, LIMITS).ingest(landed, "name")
    assert [row[5] for row in rows_of(lake, done.data_file)] == [key(1), key(1), key(2)]
    assert {name: found.rows for name, found in done.files.items()} == {key(1): 2, key(2): 1}


def test_a_data_file_is_written_anew_without_some_of_its_files(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bronze, "BATCH", 500)  # so that it has several row groups
    names = [key(day, symbol) for symbol in ("BTCUSDT", "ETHUSDT") for day in (1, 2, 3)]
    done = written(lake, {name: zipped(lines(*bars(1, *range(4)))) for name in names})
    assert done.data_file is not None
    assert pq.ParquetFile(f"{lake.uri(TABLE)}/{done.data_file.key}").num_row_groups > 1
    before = pl.read_parquet(f"{lake.uri(TABLE)}/{done.data_file.key}")
    out = {names[0], names[4], "a key that it does not have"}
    rest = Bronze(lake, MemoryStore(), LIMITS).without(TABLE, done.data_file, out, "rest")
    assert rest is not None
    assert rest.key == "spot/rest.parquet"
    after = rows_of(lake, rest)
    assert after == before.filter(~pl.col("source_key").is_in(list(out))).rows()
    assert len(after) == 16
    commit(lake, TABLE, rest)
    (action,) = pl.DataFrame(DeltaTable(lake.uri(TABLE)).get_add_actions(flatten=True)).rows(named=True)
    assert (action["min.source_key"], action["max.source_key"]) == (names[1], names[5])
    assert (action["min.symbol"], action["max.symbol"]) == ("BTCUSDT", "ETHUSDT")


def test_a_data_file_without_any_of_its_files_is_none(lake: Lake) -> None:
    done = written(lake, {key(day): ZIPS["one row"](day) for day in (1, 2)})
    assert done.data_file is not None
    assert (
        Bronze(lake, MemoryStore(), LIMITS).without(TABLE, done.data_file, {key(1), key(2)}, "rest") is None
    )


def test_a_data_file_that_is_lost_cannot_be_written_anew(lake: Lake) -> None:
    lost = DataFile("spot/lost.parquet", 1, 1, "{}")
    with pytest.raises(StorageError, match="reading bronze/binance_klines: the object store failed"):
        Bronze(lake, MemoryStore(), LIMITS).without(TABLE, lost, {key(1)}, "rest")
