from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import obstore
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from marketlake.infrastructure.storage import table_log
from marketlake.infrastructure.storage.delta import (
    DataFile,
    TableShape,
    data_files,
    open_table,
    scan_files,
    write_blocks,
)
from marketlake.infrastructure.storage.errors import (
    CommitConflictError,
    StorageError,
    StorageFullError,
    TableSchemaError,
)
from marketlake.infrastructure.storage.parquet import Block
from marketlake.infrastructure.storage.stores import Lake
from marketlake.infrastructure.storage.table_log import CHECKPOINT_EVERY, TableLog
from obstore.store import MemoryStore

SHAPE = TableShape(path="t", columns=pa.schema([("x", pa.int64())]), labels=("who",), committed=True)


def data_file(lake: Lake, who: str, *values: int) -> DataFile:
    """A data file that lies in the store."""
    rows = pl.DataFrame({"x": values}, schema={"x": pl.Int64})
    written = write_blocks(lake, SHAPE, f"{who}.parquet", [Block.of(rows, {"who": who})])
    assert written is not None
    return written


def contents(lake: Lake) -> list[tuple[str, int]]:
    return sorted(pl.read_delta(lake.uri("t")).select("who", "x").rows())


@pytest.fixture
def log(lake: Lake) -> TableLog:
    return TableLog(lake, SHAPE)


def test_a_table_that_is_missing_is_made_and_has_no_commit(lake: Lake, log: TableLog) -> None:
    assert log.read() == 0
    assert contents(lake) == []


def test_a_commit_adds_and_removes_at_once(lake: Lake, log: TableLog) -> None:
    a, b, c = (data_file(lake, name, 1, 2) for name in "abc")
    log.commit(1, [a, b], [])
    assert log.read() == 1
    log.commit(2, [c], [a])
    assert log.read() == 2
    assert contents(lake) == [("b", 1), ("b", 2), ("c", 1), ("c", 2)]


WIDER = replace(SHAPE, columns=SHAPE.columns.append(pa.field("y", pa.int64())))


def test_a_new_column_comes_to_a_table_that_is_there_in_a_commit_of_its_own(
    lake: Lake, log: TableLog
) -> None:
    log.read()
    log.commit(1, [data_file(lake, "a", 1)], [])
    before = log.read()
    wider = TableLog(lake, WIDER)
    wider.widen()
    assert wider.read() == before == 1, "it is no commit under a number"
    rows = pl.DataFrame({"x": [2], "y": [3]})
    written = write_blocks(lake, WIDER, "b.parquet", [Block.of(rows, {"who": "b"})])
    assert written is not None
    wider.commit(2, [written], [])
    wider.widen()
    table = DeltaTable(lake.uri("t"))
    assert sorted(pl.read_delta(table).select("who", "x", "y").rows()) == [("a", 1, None), ("b", 2, 3)]
    paths = data_files(table).sort("path")["path"]
    for order in (paths, paths.reverse()):
        found = scan_files(lake, WIDER, order).select("who", "x", "y").collect()
        assert sorted(found.rows()) == [("a", 1, None), ("b", 2, 3)]
    narrow = scan_files(lake, SHAPE, paths).collect()
    assert sorted(narrow.rows()) == [("a", 1), ("b", 2)], "another release may have added a column"


def test_a_column_of_another_type_is_refused_and_nothing_is_committed(lake: Lake, log: TableLog) -> None:
    log.read()
    other = replace(SHAPE, columns=pa.schema([("x", pa.string()), ("y", pa.int64())]))
    with pytest.raises(
        TableSchemaError, match=r"column x is .*long.* in the table and .*string.* in its contract"
    ):
        TableLog(lake, other).widen()
    assert DeltaTable(lake.uri("t")).version() == 0


def test_of_two_that_add_a_column_at_once_the_second_is_told(
    lake: Lake, log: TableLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.read()
    stale = open_table(lake, SHAPE)
    TableLog(lake, WIDER).widen()
    monkeypatch.setattr(table_log, "open_table", lambda *_: stale)
    with pytest.raises(CommitConflictError, match="committed first"):
        TableLog(lake, WIDER).widen()


def test_the_number_survives_whoever_wrote_it(lake: Lake, log: TableLog) -> None:
    log.read()
    log.commit(41, [data_file(lake, "a", 1)], [])
    assert TableLog(lake, SHAPE).read() == 41


def test_the_number_survives_the_checkpoints_of_the_log(lake: Lake, log: TableLog) -> None:
    for number in range(1, 61):
        log.read()
        log.commit(number, [data_file(lake, f"file-{number}", number)], [])
    table = DeltaTable(lake.uri("t"))
    table.create_checkpoint()
    table.cleanup_metadata()
    reopened = TableLog(lake, SHAPE)
    assert reopened.read() == 60
    assert reopened.gone(["file-1.parquet", "file-60.parquet"]) == set()
    assert len(contents(lake)) == 60
    for path in Path(lake.uri("t/_delta_log")).glob("*.json"):  # as a log clean-up does in a week
        path.unlink()
    again = TableLog(lake, SHAPE)
    assert again.read() == 60
    again.commit(61, [data_file(lake, "file-61", 61)], [])
    assert len(contents(lake)) == 61


def test_whoever_committed_last_the_number_is_that_of_our_last_commit(lake: Lake, log: TableLog) -> None:
    log.read()
    log.commit(3, [data_file(lake, "a", 1)], [])
    for value in (7, 8):
        write_deltalake(lake.uri("t"), pl.DataFrame({"who": ["other"], "x": [value]}), mode="append")
    assert (log.read(), TableLog(lake, SHAPE).read()) == (3, 3)
    DeltaTable(lake.uri("t")).create_checkpoint()
    write_deltalake(lake.uri("t"), pl.DataFrame({"who": ["other"], "x": [9]}), mode="append")
    assert TableLog(lake, SHAPE).read() == 3, "no commit since the checkpoint is ours"
    log.read()
    log.commit(4, [data_file(lake, "b", 2)], [])
    assert contents(lake) == [("a", 1), ("b", 2), ("other", 7), ("other", 8), ("other", 9)]


def test_a_checkpoint_is_due_after_some_commits(lake: Lake, log: TableLog) -> None:
    due = []
    for number in range(1, 2 * CHECKPOINT_EVERY + 2):
        log.read()
        log.commit(number, [data_file(lake, f"file-{number}", number)], [])
        if log.shorten():
            due.append(number)
    assert due == [CHECKPOINT_EVERY, 2 * CHECKPOINT_EVERY]
    assert len(contents(lake)) == 2 * CHECKPOINT_EVERY + 1
    again = TableLog(lake, SHAPE)
    again.read()
    assert not again.shorten(), "it knows of the last one"


def test_a_store_that_takes_no_checkpoint_is_said_to_fail(
    lake: Lake, log: TableLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: DeltaTable) -> None:
        raise OSError("507 Insufficient Storage")

    monkeypatch.setattr(table_log, "CHECKPOINT_EVERY", 1)
    monkeypatch.setattr(DeltaTable, "create_checkpoint", fails)
    log.read()
    log.commit(1, [data_file(lake, "a", 1)], [])
    with pytest.raises(StorageFullError, match="writing a checkpoint of t"):
        log.shorten()


def test_a_commit_reads_as_any_other_writers(lake: Lake, log: TableLog) -> None:
    """By the library, and by DuckDB through it; names that a path has to encode are no exception."""
    log.read()
    odd = data_file(lake, "a b%c/ü", 1, 2)
    log.commit(1, [odd, data_file(lake, "b", 3)], [])
    assert contents(lake) == [("a b%c/ü", 1), ("a b%c/ü", 2), ("b", 3)]
    table = DeltaTable(lake.uri("t"))
    table.optimize.compact()
    assert contents(lake) == [("a b%c/ü", 1), ("a b%c/ü", 2), ("b", 3)]
    assert [commit["operation"] for commit in table.history()] == ["OPTIMIZE", "WRITE", "CREATE TABLE"]
    log.read()
    (merged,) = data_files(open_table(lake, SHAPE))["path"]
    last = data_file(lake, "last", 9)
    log.commit(2, [last], [replace(last, key=merged)])
    assert contents(lake) == [("last", 9)]


def test_a_log_keeps_the_number_for_ever(lake: Lake, log: TableLog) -> None:
    log.read()
    kept = DeltaTable(lake.uri("t")).metadata().configuration
    assert "delta.setTransactionRetentionDuration" not in kept


def test_the_writer_that_read_before_another_one_committed_fails(lake: Lake, log: TableLog) -> None:
    stale = TableLog(lake, SHAPE)
    assert (stale.read(), log.read()) == (0, 0)
    log.commit(1, [data_file(lake, "a", 1)], [])
    with pytest.raises(CommitConflictError, match=r"t: another writer committed before number 1"):
        stale.commit(1, [data_file(lake, "b", 2)], [])
    assert contents(lake) == [("a", 1)]
    assert stale.read() == 1
    stale.commit(2, [data_file(lake, "c", 3)], [])
    assert contents(lake) == [("a", 1), ("c", 3)]


def test_the_commit_of_any_other_program_makes_one_behind_it_fail(lake: Lake, log: TableLog) -> None:
    log.read()
    write_deltalake(lake.uri("t"), pl.DataFrame({"who": ["other"], "x": [7]}), mode="append")
    with pytest.raises(CommitConflictError):
        log.commit(1, [data_file(lake, "a", 1)], [])
    assert contents(lake) == [("other", 7)]
    assert log.read() == 0


def test_a_writer_that_removes_what_another_one_has_removed_fails(lake: Lake, log: TableLog) -> None:
    former = data_file(lake, "a", 1)
    log.read()
    log.commit(1, [former], [])
    stale = TableLog(lake, SHAPE)
    stale.read()
    log.read()
    log.commit(2, [data_file(lake, "b", 2)], [former])
    with pytest.raises(CommitConflictError):
        stale.commit(2, [data_file(lake, "c", 3)], [former])
    assert contents(lake) == [("b", 2)]


def test_a_commit_that_is_on_its_way_when_the_log_is_fenced_fails(lake: Lake, log: TableLog) -> None:
    log.read()
    log.commit(1, [data_file(lake, "a", 1)], [])
    former = TableLog(lake, SHAPE)
    former.read()
    late = data_file(lake, "late", 2)
    assert TableLog(lake, SHAPE).fence() == 1
    with pytest.raises(CommitConflictError):
        former.commit(2, [late], [])
    assert former.read() == 1
    assert contents(lake) == [("a", 1)]


def test_a_fence_leaves_rows_and_number_as_they_are_and_its_writer_goes_on(lake: Lake, log: TableLog) -> None:
    assert log.fence() == 0
    log.commit(1, [data_file(lake, "a", 1)], [])
    assert log.fence() == 1
    log.commit(2, [data_file(lake, "b", 2)], [])
    assert log.read() == 2
    assert contents(lake) == [("a", 1), ("b", 2)]


def test_data_files_that_the_table_does_not_have_are_gone(lake: Lake, log: TableLog) -> None:
    live, removed, never = (data_file(lake, name, 1) for name in ("live", "removed", "never"))
    log.read()
    log.commit(1, [live, removed], [])
    log.read()
    log.commit(2, [], [removed])
    log.read()
    assert log.gone([live.key, removed.key, never.key]) == {removed.key, never.key}
    assert log.gone([]) == set()


def test_what_another_writer_removed_is_gone_once_the_log_is_read(lake: Lake, log: TableLog) -> None:
    file = data_file(lake, "a", 1)
    log.read()
    log.commit(1, [file], [])
    watching = TableLog(lake, SHAPE)
    watching.read()
    log.read()
    log.commit(2, [], [file])
    watching.read()
    assert watching.gone([file.key]) == {file.key}


def test_the_log_tells_what_a_data_file_holds(lake: Lake, log: TableLog) -> None:
    log.read()
    log.commit(1, [data_file(lake, "a", 3, 1, 2)], [])
    (row,) = data_files(open_table(lake, SHAPE)).rows(named=True)
    assert (row["path"], row["num_records"]) == ("a.parquet", 3)
    assert (row["min.who"], row["max.who"], row["min.x"], row["max.x"]) == ("a", "a", 1, 3)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ("500 Internal Server Error", StorageError),
        ("507 Insufficient Storage", StorageFullError),
    ],
)
def test_after_a_failure_the_log_tells_whether_it_holds_the_commit(
    lake: Lake,
    log: TableLog,
    monkeypatch: pytest.MonkeyPatch,
    failure: str,
    error: type[Exception],
) -> None:
    first, second = data_file(lake, "a", 1), data_file(lake, "b", 2)
    log.read()
    put = obstore.put
    outcomes: Iterator[bool] = iter([True, False])

    def failing(*args: object, **options: object) -> None:
        if next(outcomes):
            put(*args, **options)  # type: ignore[arg-type]
        raise OSError(failure)

    monkeypatch.setattr(obstore, "put", failing)
    with pytest.raises(error, match="committing to t: the object store"):
        log.commit(1, [first], [])
    assert log.read() == 1
    with pytest.raises(error):
        log.commit(2, [second], [])
    assert log.read() == 1
    assert contents(lake) == [("a", 1)]


def test_a_store_that_is_away_is_said_to_be() -> None:
    options = {
        "endpoint_url": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b", "region": "x",
        "allow_http": "true", "max_retries": "0", "retry_timeout": "1s",
    }  # fmt: skip
    with pytest.raises(StorageError, match="opening the table t: the object store failed"):
        TableLog(Lake("s3://lake", MemoryStore(), options), SHAPE).read()
