"""Delta tables whose parts are replaced as a whole, in one commit, by any number of writers at once.

A *scope* is what is written as a whole: the rows of one source file, or one period of one series. Each has
its own data files, and a commit removes the data files that a scope had and adds its new one. The
scope's name goes into the commit as an application transaction: of two writers that replace the same scope at
the same time, delta-rs lets one through and fails the other, which then looks again and replaces what the
first one wrote. Commits to different scopes do not hinder each other. A writer that dies before its commit
leaves only a data file that no version of the table names.
"""

import contextlib
import hashlib
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from marketlake.infrastructure.storage.errors import CommitConflictError, TableSchemaError
from marketlake.infrastructure.storage.parquet import Block, ParquetStream
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error
from marketlake.retry import Backoff, retry

_BACKOFF = Backoff(attempts=40, first_wait_s=0.02, longest_wait_s=1.0)
"""How a commit is tried again while other writers win."""
MARK = 24
"""Length of :attr:`Scope.mark`."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_CONFIGURATION: Mapping[str, str | None] = {
    "delta.checkpointInterval": "50",
    "delta.logRetentionDuration": "interval 7 days",
}
_FORGETFUL: Mapping[str, str | None] = {
    # Needed only while writers race; kept for ever, each scope would leave a line in every checkpoint.
    "delta.setTransactionRetentionDuration": "interval 1 days",
}


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table's path and columns.

    Tables are not partitioned: what is the same in many rows stands in the data file as a column that costs nothing,
    and the log's minimum and maximum of it let readers pass over files as partitions would. So any reader of
    Parquet sees all columns, and no value has to survive being a folder's name.
    """

    path: str
    """Below the lake's root, e.g. ``silver/candles``."""
    columns: pa.Schema
    labels: tuple[str, ...] = ()
    """Text columns, the first ones, that are the same in many rows that follow each other."""
    committed: bool = False
    """Whether one committer writes it, under a sequence of its own; else by :func:`replace`."""
    comments: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of columns, as the table's metadata have them."""

    @property
    def schema(self) -> pa.Schema:
        """All columns, as the table's log has them: nullable, so that a later version may leave one out."""
        texts = (pa.field(name, pa.string()) for name in self.labels)
        fields = [*texts, *(field.with_nullable(True) for field in self.columns)]
        return pa.schema([field.with_metadata(self._metadata(field.name)) for field in fields])

    @property
    def types(self) -> dict[str, pl.DataType]:
        """All columns, as Polars reads them."""
        labels: dict[str, pl.DataType] = dict.fromkeys(self.labels, pl.String())
        return labels | dict(pl.DataFrame(self.columns.empty_table()).schema)

    def completed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows with the columns that they do not have yet, which are null."""
        missing = [
            pl.lit(None, kind).alias(name) for name, kind in self.types.items() if name not in rows.columns
        ]
        return rows.with_columns(missing).select(list(self.types))

    def _metadata(self, name: str) -> dict[str, str]:
        return {"comment": self.comments[name]} if name in self.comments else {}


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of a table that is replaced as a whole."""

    name: str
    """Identifies it among the table's scopes; parts divided by slashes. The folder is made of it, in characters that no
    path has to encode."""
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Values of the table's labels, the same in the whole scope."""

    @property
    def mark(self) -> str:
        """What the names of its data files begin with."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:MARK]

    def new_key(self) -> str:
        """Return the key of a new data file, in a folder that tells people what lies in it."""
        *parts, _ = self.name.split("/")
        folder = "".join(f"{_UNSAFE.sub('_', part)}/" for part in parts if part.strip("."))
        return f"{folder}{self.mark}-{uuid.uuid4()}.parquet"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file that lies in the store, ready to be committed."""

    key: str
    """Below the table's folder."""
    size: int
    """Bytes."""
    rows: int
    statistics: str
    """As Delta's log wants them."""


def open_table(lake: Lake, shape: TableShape, version: int | None = None) -> DeltaTable:
    """Return the table at a version, by default at its newest, created if it is missing."""
    uri = lake.uri(shape.path)
    try:
        with contextlib.suppress(TableNotFoundError):
            return DeltaTable(uri, version=version, storage_options=lake.options)
        with contextlib.suppress(CommitFailedError):  # another writer created it at the same moment
            return DeltaTable.create(
                uri,
                shape.schema,
                mode="ignore",
                configuration=_CONFIGURATION if shape.committed else {**_CONFIGURATION, **_FORGETFUL},
                storage_options=lake.options,
                commit_properties=CommitProperties(
                    max_commit_retries=0
                ),  # else it would be created over again
            )
        return DeltaTable(uri, storage_options=lake.options)
    except STORE_ERRORS as error:
        raise storage_error(error, f"opening the table {shape.path}") from error


def widen(table: DeltaTable, shape: TableShape) -> None:
    """Add the columns that the shape has and the table has not, nullable, in a commit of their own.

    Raises:
        TableSchemaError: a column is of another type than the shape's.
        CommitFailedError: another writer was first.
        StorageError: the store failed.
    """
    there = {field.name: field.type for field in table.schema().fields}
    wanted = Schema.from_arrow(shape.schema).fields
    if other := [field for field in wanted if there.get(field.name, field.type) != field.type]:
        name = other[0].name
        raise TableSchemaError(
            f"{shape.path}: the column {name} is {there[name]} in the table and {other[0].type} in its contract. Only "
            "new columns can come to a table that is there: give the contract's table another name, or make the "
            "lake anew with `marketlake lake rebuild`."
        )
    missing = [field for field in wanted if field.name not in there]
    if not missing:
        return
    try:
        table.alter.add_columns(missing, commit_properties=CommitProperties(max_commit_retries=0))
    except CommitFailedError:
        raise
    except STORE_ERRORS as error:
        raise storage_error(error, f"adding columns to {shape.path}") from error


def scan_files(lake: Lake, shape: TableShape, paths: Iterable[str]) -> pl.LazyFrame:
    """Return the rows of some data files of a table; older ones may lack columns, which are null then."""
    uris = [f"{lake.uri(shape.path)}/{path}" for path in paths]
    return pl.scan_parquet(
        uris,
        storage_options=lake.options or None,
        schema=shape.types,
        missing_columns="insert",
        extra_columns="ignore",
    )


def data_files(table: DeltaTable) -> pl.DataFrame:
    """Return the data files of a table's version.

    Returns:
        columns `path` (below the table's folder), `size_bytes`, `num_records`, `min.*`, `max.*`; no rows, and
        not all columns, for an empty table.
    """
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    return actions.with_columns(pl.col("path").cast(pl.String()))


def write_file(
    lake: Lake, shape: TableShape, scope: Scope, frames: Iterable[pl.DataFrame]
) -> DataFile | None:
    """Stream rows into a new data file of a scope; None, and no file, if there are no rows.

    Memory and errors are those of :func:`write_blocks`.
    """
    return write_blocks(lake, shape, scope.new_key(), (Block.of(rows, scope.labels) for rows in frames))


def write_blocks(lake: Lake, shape: TableShape, key: str, blocks: Iterable[Block]) -> DataFile | None:
    """Stream blocks of rows into the new data file of that key; None, and no file, if there are no rows.

    Memory: one block, its Parquet bytes, and the parts of the upload that are in flight.

    Raises:
        StorageError: the store failed.
        StorageFullError: it has no room left. Whatever `blocks` raises passes through, and leaves nothing in the store.
    """
    stream = ParquetStream(shape.columns, shape.labels)
    counted = _Counted(blocks)
    size = lake.put(f"{shape.path}/{key}", stream.encode(counted), wanted=lambda: counted.rows > 0)
    if not counted.rows:
        return None
    return DataFile(key, size, counted.rows, stream.statistics().to_json())


@dataclass(frozen=True, slots=True)
class Replacement:
    """Scopes of a table, and what comes in their place."""

    scopes: Sequence[Scope]
    """All that is replaced; those without a new file become empty."""
    files: Sequence[DataFile]
    merged: Collection[str] = ()
    """Paths of further data files that go, since their rows are among the new ones."""


def replace(lake: Lake, shape: TableShape, write: Callable[[DeltaTable], Replacement]) -> int:
    """Replace scopes by new data files in one commit.

    Args:
        lake: where the table is.
        shape: the table.
        write: called with the table before its sources are read, so that whoever changes a source and commits
            here first makes this commit fail; called again after each conflict.

    Returns:
        a version of the table that has the commit in it; no commit is made where there is nothing to remove
        or add.

    Raises:
        CommitConflictError: others kept replacing the same scopes.
        TableSchemaError: the table has a column of another type.
    """

    def commit() -> int:
        table = open_table(lake, shape)
        widen(table, shape)
        new = write(table)
        former = _removals(table, new)
        actions: list[AddAction | RemoveAction] = [*former, *map(addition, new.files)]
        if not actions:
            return table.version()
        try:
            table.create_write_transaction(
                actions,
                "append",
                shape.schema,
                [],
                # Of two commits with one scope's name the second fails, whatever the numbers: nobody has to look up
                # the last one, which costs 9 ms each.
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(scope.name, time.time_ns()) for scope in new.scopes]
                ),
            )
        except CommitFailedError:
            raise
        except STORE_ERRORS as error:
            raise storage_error(error, f"committing to {shape.path}") from error
        table.update_incremental()
        return table.version()

    try:
        return retry(commit, backoff=_BACKOFF, on=CommitFailedError, tell=lambda _: None)
    except CommitFailedError as error:
        raise CommitConflictError(
            f"{shape.path}: other writers replaced the same rows {_BACKOFF.attempts} times in a row. Two "
            "collections of the same files seem to run against each other: let one finish, then collect again."
        ) from error


def replace_few(
    lake: Lake, shape: TableShape, scopes: Collection[Scope], files: Mapping[Scope, DataFile]
) -> None:
    """:func:`replace` many scopes most of which have no rows, neither before nor now: they take no part in the commit.

    Args:
        lake: where the table is.
        shape: the table.
        scopes: all that is replaced.
        files: the new data files.
    """

    def write(table: DeltaTable) -> Replacement:
        taking_part = _occupied(table, scopes) | files.keys()
        return Replacement(sorted(taking_part, key=lambda scope: scope.name), list(files.values()))

    replace(lake, shape, write)


def scope_files(table: DeltaTable, scopes: Iterable[Scope]) -> pl.DataFrame:
    """:func:`data_files`, those of some scopes only."""
    return data_files(table).filter(in_scopes(scopes))


def in_scopes(scopes: Iterable[Scope]) -> pl.Expr:
    """Return which of :func:`data_files` are those of some scopes."""
    name = pl.col("path").str.split("/").list.last()
    return name.str.head(MARK).is_in([scope.mark for scope in scopes])


def _occupied(table: DeltaTable, scopes: Iterable[Scope]) -> set[Scope]:
    """Return those of some scopes that have data files."""
    by_mark = {scope.mark: scope for scope in scopes}
    paths = scope_files(table, by_mark.values())["path"]
    return {by_mark[path.rpartition("/")[2][:MARK]] for path in paths}


def _removals(table: DeltaTable, new: Replacement) -> list[RemoveAction]:
    former = data_files(table).filter(in_scopes(new.scopes) | pl.col("path").is_in(new.merged))
    return [removal(path, size) for path, size in former.select("path", "size_bytes").iter_rows()]


def removal(key: str, size: int) -> RemoveAction:
    """Return the action that takes a data file out of a table."""
    now = int(time.time() * 1000)
    return RemoveAction(path=key, data_change=True, deletion_timestamp=now, size=size)


def addition(file: DataFile) -> AddAction:
    """Return the action that puts a data file into a table."""
    return AddAction(
        path=file.key,
        size=file.size,
        partition_values={},
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats=file.statistics,
    )


class _Counted:
    """Blocks on their way, counted."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = blocks
        self.rows = 0

    def __iter__(self) -> Iterator[Block]:
        for block in self._blocks:
            self.rows += block.rows.height
            yield block
