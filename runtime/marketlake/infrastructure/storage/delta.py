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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from marketlake.infrastructure.storage.errors import CommitConflictError
from marketlake.infrastructure.storage.parquet import ParquetStream
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
    # Needed only while writers race; kept for ever, each source file would leave a line in every checkpoint.
    "delta.setTransactionRetentionDuration": "interval 1 days",
}


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table's path and columns.

    Tables are not partitioned: what is constant in a data file stands in it as a column that costs nothing,
    and the log's minimum and maximum of it let readers pass over files as partitions would. So any reader of
    Parquet sees all columns, and no value has to survive being a folder's name.
    """

    path: str
    """Below the lake's root, e.g. ``silver/candles``."""
    columns: pa.Schema
    constants: tuple[str, ...] = ()
    """Text columns, the first ones, that have one value in a data file."""
    comments: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of columns, as the table's metadata have them."""

    @property
    def schema(self) -> pa.Schema:
        """All columns, as the table's log has them: nullable, so that a later version may leave one out."""
        texts = (pa.field(name, pa.string()) for name in self.constants)
        fields = [*texts, *(field.with_nullable(True) for field in self.columns)]
        return pa.schema([field.with_metadata(self._metadata(field.name)) for field in fields])

    def _metadata(self, name: str) -> dict[str, str]:
        return {"comment": self.comments[name]} if name in self.comments else {}


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of a table that is replaced as a whole."""

    name: str
    """Identifies it among the table's scopes; parts divided by slashes."""
    constants: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Values of the table's constant columns."""

    @property
    def mark(self) -> str:
        """What the names of its data files begin with."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:MARK]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file that lies in the store, ready to be committed."""

    scope: Scope
    key: str
    """Below the table's folder."""
    size: int
    """Bytes."""
    statistics: str
    """As Delta's log wants them."""


def open_table(lake: Lake, shape: TableShape) -> DeltaTable:
    """Return the table at its newest version, created if it is missing."""
    uri = lake.uri(shape.path)
    try:
        with contextlib.suppress(TableNotFoundError):
            return DeltaTable(uri, storage_options=lake.options)
        with contextlib.suppress(CommitFailedError):  # another writer created it at the same moment
            return DeltaTable.create(
                uri,
                shape.schema,
                mode="ignore",
                configuration=_CONFIGURATION,
                storage_options=lake.options,
                commit_properties=CommitProperties(
                    max_commit_retries=0
                ),  # else it would be created over again
            )
        return DeltaTable(uri, storage_options=lake.options)
    except STORE_ERRORS as error:
        raise storage_error(error, f"opening the table {shape.path}") from error


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

    Memory: one frame, its Parquet bytes, and the parts of the upload that are in flight.

    Raises:
        StorageError: the store failed.
        StorageFullError: it has no room left. Whatever `frames` raises passes through, and leaves nothing in the store.
    """
    stream = ParquetStream(shape.columns, {name: scope.constants[name] for name in shape.constants})
    key = f"{_folder(scope)}{scope.mark}-{uuid.uuid4()}.parquet"
    counted = _Counted(frames)
    size = lake.put(f"{shape.path}/{key}", stream.encode(counted), wanted=lambda: counted.rows > 0)
    if not counted.rows:
        return None
    return DataFile(scope, key, size, stream.statistics().to_json())


def replace(
    lake: Lake, shape: TableShape, scopes: Sequence[Scope], write: Callable[[DeltaTable], Sequence[DataFile]]
) -> int:
    """Replace scopes by new data files in one commit.

    Args:
        lake: where the table is.
        shape: the table.
        scopes: all that is replaced; those without a new file become empty.
        write: called with the table before its sources are read, so that whoever changes a source and commits
            here first makes this commit fail; called again after each conflict.

    Returns:
        a version of the table that has the commit in it; no commit is made where there is nothing to remove
        or add.

    Raises:
        CommitConflictError: others kept replacing the same scopes.
    """

    def commit() -> int:
        table = open_table(lake, shape)
        files = write(table)
        former = _removals(table, scopes)
        actions: list[AddAction | RemoveAction] = [*former, *(_addition(file) for file in files)]
        if not actions:
            return table.version()
        try:
            table.create_write_transaction(
                actions,
                "append",
                shape.schema,
                [],
                commit_properties=CommitProperties(
                    app_transactions=[
                        Transaction(scope.name, (table.transaction_version(scope.name) or 0) + 1)
                        for scope in scopes
                    ]
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
            f"{shape.path}: other writers replaced {scopes[0].name} {_BACKOFF.attempts} times in a row. Two "
            "collections of the same files seem to run against each other: let one finish, then collect again."
        ) from error


def scope_files(table: DeltaTable, scopes: Iterable[Scope]) -> pl.DataFrame:
    """:func:`data_files`, those of some scopes only."""
    name = pl.col("path").str.split("/").list.last()
    return data_files(table).filter(name.str.head(MARK).is_in({scope.mark for scope in scopes}))


def _removals(table: DeltaTable, scopes: Iterable[Scope]) -> list[RemoveAction]:
    now = int(time.time() * 1000)
    former = scope_files(table, scopes)
    return [
        RemoveAction(path=path, data_change=True, deletion_timestamp=now, size=size)
        for path, size in former.select("path", "size_bytes").iter_rows()
    ]


def _addition(file: DataFile) -> AddAction:
    return AddAction(
        path=file.key,
        size=file.size,
        partition_values={},
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats=file.statistics,
    )


def _folder(scope: Scope) -> str:
    """A folder that tells people what lies in it; made of characters that no path has to encode."""
    *parts, _ = scope.name.split("/")
    return "".join(f"{_UNSAFE.sub('_', part)}/" for part in parts if part.strip("."))


class _Counted:
    """Frames on their way, counted."""

    def __init__(self, frames: Iterable[pl.DataFrame]) -> None:
        self._frames = frames
        self.rows = 0

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for frame in self._frames:
            self.rows += frame.height
            yield frame
