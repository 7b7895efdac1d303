import dataclasses
from threading import Barrier, Thread

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from marketlake.infrastructure.storage import delta
from marketlake.infrastructure.storage.delta import (
    Replacement,
    Scope,
    TableShape,
    open_table,
    replace,
    replace_few,
    scope_files,
    write_file,
)
from marketlake.infrastructure.storage.errors import CommitConflictError, StorageError
from marketlake.infrastructure.storage.stores import PART, Lake
from marketlake.retry import Backoff
from obstore.store import LocalStore, MemoryStore

SHAPE = TableShape(
    path="t",
    columns=pa.schema([("x", pa.int64()), ("y", pa.float64()), ("z", pa.string())]),
    labels=("who",),
)


def scope(name):
    return Scope(f"part/{name}", {"who": name})


def frame(*values):
    return pl.DataFrame({"x": values, "y": [1.0] * len(values), "z": ["text"] * len(values)}).cast(
        {"x": pl.Int64}
    )


def put(lake, name, *values):
    file = write_file(lake, SHAPE, scope(name), [frame(*values)])
    return replace(lake, SHAPE, lambda _: Replacement([scope(name)], [file] if file else []))


def contents(lake):
    return sorted(pl.read_delta(lake.uri("t")).select("who", "x").rows())


def test_a_scope_is_replaced_as_a_whole_and_others_stay(lake):
    put(lake, "a", 1, 2)
    put(lake, "b", 3)
    assert put(lake, "a", 4) == 3
    assert contents(lake) == [("a", 4), ("b", 3)]


def test_a_new_column_comes_to_a_table_that_is_there(lake):
    put(lake, "a", 1)
    wider = dataclasses.replace(SHAPE, columns=SHAPE.columns.append(pa.field("w", pa.int64())))
    rows = frame(2).with_columns(pl.lit(3, pl.Int64).alias("w"))
    file = write_file(lake, wider, scope("b"), [rows])
    replace(lake, wider, lambda _: Replacement([scope("b")], [file]))
    put(lake, "c", 4)
    found = pl.read_delta(lake.uri("t")).select("who", "x", "w").rows()
    assert sorted(found) == [("a", 1, None), ("b", 2, 3), ("c", 4, None)]


def test_a_scope_without_rows_is_emptied(lake):
    put(lake, "a", 1)
    put(lake, "a")
    assert contents(lake) == []


def test_nothing_to_remove_or_add_makes_no_commit(lake):
    put(lake, "a", 1)
    before = DeltaTable(lake.uri("t")).version()
    assert put(lake, "b") == before
    assert DeltaTable(lake.uri("t")).version() == before


def test_several_scopes_are_replaced_in_one_commit(lake):
    put(lake, "a", 1)
    put(lake, "b", 2)
    scopes = [scope("a"), scope("b"), scope("c")]
    files = [write_file(lake, SHAPE, one, [frame(9)]) for one in scopes[1:]]
    before = DeltaTable(lake.uri("t")).version()
    assert replace(lake, SHAPE, lambda _: Replacement(scopes, files)) == before + 1
    assert contents(lake) == [("b", 9), ("c", 9)]


def test_two_writers_of_one_scope_end_with_the_rows_of_the_later_one(lake):
    calls = []

    def overtaken(table):
        calls.append(table.version())
        if len(calls) == 1:
            put(lake, "a", 1)
        return Replacement([scope("a")], [write_file(lake, SHAPE, scope("a"), [frame(2)])])

    open_table(lake, SHAPE)
    replace(lake, SHAPE, overtaken)
    assert calls == [0, 1]
    assert contents(lake) == [("a", 2)]


def test_writers_that_find_no_table_at_the_same_moment_all_find_one(tmp_path):
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        lake = Lake(str(folder), LocalStore(folder))
        together = Barrier(6)
        versions = []

        def find(lake=lake, together=together, versions=versions):
            together.wait()
            versions.append(open_table(lake, SHAPE).version())

        threads = [Thread(target=find) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert versions == [0] * 6


def test_many_writers_at_once_lose_and_double_nothing(lake):
    threads = [Thread(target=put, args=(lake, f"s{n % 4}", n % 4)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(lake) == [("s0", 0), ("s1", 1), ("s2", 2), ("s3", 3)]


def test_a_writer_that_is_always_overtaken_gives_up(lake, monkeypatch):
    monkeypatch.setattr(delta, "_BACKOFF", Backoff(attempts=3, first_wait_s=0.02))

    def always_overtaken(table):
        put(lake, "a", 1)
        return Replacement([scope("a")], [write_file(lake, SHAPE, scope("a"), [frame(2)])])

    with pytest.raises(
        CommitConflictError, match=r"replaced the same rows 3 times in a row. .* let one finish"
    ) as raised:
        replace(lake, SHAPE, always_overtaken)
    assert raised.value.transient
    assert contents(lake) == [("a", 1)]


def test_a_file_that_was_never_committed_is_not_seen(lake):
    put(lake, "a", 1)
    write_file(lake, SHAPE, scope("a"), [frame(7)])
    assert contents(lake) == [("a", 1)]
    assert scope_files(DeltaTable(lake.uri("t")), [scope("a")]).height == 1


def test_rows_that_fail_on_the_way_leave_no_file(lake, tmp_path):
    def frames():
        yield frame(*range(3))
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        write_file(lake, SHAPE, scope("a"), frames())
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_large_file_streams_in_parts(lake):
    text = "".join(chr(33 + n % 90) for n in range(1000))
    frames = (
        pl.DataFrame(
            {"x": range(1000), "y": [0.0] * 1000, "z": [f"{hash((n, i))}{text}" for i in range(1000)]}
        )
        for n in range(PART // 100_000)
    )
    file = write_file(lake, SHAPE, scope("a"), frames)
    replace(lake, SHAPE, lambda _: Replacement([scope("a")], [file]))
    assert pl.read_delta(lake.uri("t")).height == 1000 * (PART // 100_000)


def test_names_of_any_kind_make_plain_paths(lake):
    for name in ("币安人生USDT", "a b=c%d", "../x", "/y"):
        put(lake, name, 1)
    assert contents(lake) == sorted((name, 1) for name in ("币安人生USDT", "a b=c%d", "../x", "/y"))
    for path in scope_files(DeltaTable(lake.uri("t")), [scope("../x"), scope("a b=c%d")])["path"]:
        assert all(letter.isalnum() or letter in "/._-" for letter in path)
        assert ".." not in path.split("/")


def test_a_store_that_is_away_is_said_to_be(lake):
    options = {
        "endpoint_url": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b", "region": "x",
        "allow_http": "true", "max_retries": "0", "retry_timeout": "1s",
    }  # fmt: skip
    with pytest.raises(StorageError, match="opening the table t: the object store failed"):
        open_table(Lake("s3://lake", MemoryStore(), options), SHAPE)


def test_a_commit_that_cannot_be_written_is_said_to_fail(lake, monkeypatch):
    file = write_file(lake, SHAPE, scope("a"), [frame(1)])

    def fails(*_, **__):
        raise OSError("507 Insufficient Storage")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", fails)
    with pytest.raises(Exception, match="committing to t: the object store has no room left"):
        replace(lake, SHAPE, lambda _: Replacement([scope("a")], [file]))


def test_scopes_without_rows_before_and_now_take_no_part_in_a_commit(lake):
    replace_few(lake, SHAPE, [scope("a"), scope("b")], {})
    assert DeltaTable(lake.uri("t")).version() == 0
    replace_few(
        lake, SHAPE, [scope("a"), scope("b")], {scope("a"): write_file(lake, SHAPE, scope("a"), [frame(1)])}
    )
    replace_few(lake, SHAPE, [scope("b")], {})
    assert (contents(lake), DeltaTable(lake.uri("t")).version()) == ([("a", 1)], 1)
    replace_few(lake, SHAPE, [scope("a"), scope("b")], {})
    assert (contents(lake), DeltaTable(lake.uri("t")).version()) == ([], 2)


def test_data_files_whose_rows_are_among_the_new_ones_go(lake):
    put(lake, "a", 1)
    put(lake, "b", 2)
    (path,) = scope_files(DeltaTable(lake.uri("t")), [scope("b")])["path"]
    new = write_file(lake, SHAPE, scope("a"), [frame(1, 2)])
    replace(lake, SHAPE, lambda _: Replacement([scope("a")], [new], merged=[path]))
    assert contents(lake) == [("a", 1), ("a", 2)]
