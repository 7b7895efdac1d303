"""Compare what PostgreSQL says of files and data files with what landing and the lake hold."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain

import obstore
from deltalake import DeltaTable
from obstore.exceptions import BaseError
from obstore.store import ObjectStore as Bucket

from marketlake.archive import ledger
from marketlake.archive.collection.stores import LAKE, LANDING, Stores
from marketlake.infrastructure.postgres import Postgres
from marketlake.infrastructure.storage.delta import DataFile, data_files
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error
from marketlake.pipeline.ingest import staging

SHOWN = 1000
"""Differences of one kind that are kept; all are counted."""
_AT_ONCE = 5000


class Kind(StrEnum):
    """What can be wrong."""

    ANOTHER_STORE = "another-store"
    """Landing or the lake is gone, or another one than the ledger speaks of."""
    NOT_IN_LANDING = "not-in-landing"
    """A collected file is not there."""
    OTHER_SIZE_IN_LANDING = "other-size-in-landing"
    NOT_IN_BRONZE = "not-in-bronze"
    """A collected file has rows, and no data file."""
    NOT_IN_LOG = "not-in-log"
    """A data file is not in its table's log."""
    UNKNOWN_IN_LOG = "unknown-in-log"
    """A table's log has a data file that nobody staged."""
    NOT_IN_LAKE = "not-in-lake"
    """A data file that the log has is not there, or has another size."""
    OTHER_ROWS = "other-rows"
    """A data file has another number of rows than its source files together."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as PostgreSQL says."""

    kind: Kind
    name: str
    """Of the store, the file or the data file."""
    detail: str


@dataclass(slots=True)
class Verification:
    """What was compared, and what differs."""

    files: int = 0
    """Newest versions in the ledger."""
    data_files: int = 0
    rows: int = 0
    """Rows of bronze."""
    counts: Counter[Kind] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    def note(self, kind: Kind, name: str, detail: str = "") -> None:
        """Count a difference, and keep it if there are few of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.differences.append(Difference(kind, name, detail))

    @property
    def whole(self) -> bool:
        """Whether nothing differs."""
        return not self.counts


def verify(postgres: Postgres, stores: Stores, lake: Lake) -> Verification:
    """Compare the ledger, landing and bronze; nothing is changed.

    Memory: some thousand entries of the ledger, and the log and the listing of one table.

    Raises:
        StorageError: the store failed.
        DatabaseUnavailableError: the database is away.
    """
    found = Verification()
    for role in stores.changed(postgres):
        found.note(Kind.ANOTHER_STORE, role, "it is gone, or another one than the ledger speaks of")
    if LANDING not in {difference.name for difference in found.differences}:
        _landing(postgres, stores.landing, found)
    if LAKE not in {difference.name for difference in found.differences}:
        _bronze(postgres, lake, found)
    return found


def _landing(postgres: Postgres, landing: Bucket, found: Verification) -> None:
    """Walk through the ledger and the bucket's listing side by side; both are in the order of keys."""
    listed = _sizes(landing, None)
    at = next(listed, None)
    for entry in _entries(postgres):
        found.files += 1
        if entry.rows and not entry.in_bronze:
            found.note(Kind.NOT_IN_BRONZE, entry.key, f"{entry.rows} rows")
        while at is not None and at[0] < entry.landing_key:
            at = next(listed, None)
        if at is None or at[0] != entry.landing_key:
            found.note(Kind.NOT_IN_LANDING, entry.landing_key)
        elif at[1] != entry.size:
            found.note(
                Kind.OTHER_SIZE_IN_LANDING, entry.landing_key, f"{at[1]} bytes instead of {entry.size}"
            )


def _entries(postgres: Postgres) -> Iterator[ledger.LedgerEntry]:
    after = ""
    while True:
        with postgres.transaction() as connection:
            entries = ledger.in_landing_order(connection, after=after, most=_AT_ONCE)
        if not entries:
            return
        yield from entries
        after = entries[-1].landing_key


def _bronze(postgres: Postgres, lake: Lake, found: Verification) -> None:
    with postgres.transaction() as connection:
        tables = staging.live_tables(connection)
        rows = ledger.rows_by_data_file(connection)
    for table in tables:
        with postgres.transaction() as connection:
            files = staging.live(connection, table)
        found.data_files += len(files)
        found.rows += sum(file.rows for file in files.values())
        for number, file in files.items():
            if rows.get(number, 0) != file.rows:
                detail = f"{file.rows} rows, its source files have {rows.get(number, 0)}"
                found.note(Kind.OTHER_ROWS, f"{table}/{file.key}", detail)
        _table(lake, table, list(files.values()), found)


def _table(lake: Lake, table: str, files: Sequence[DataFile], found: Verification) -> None:
    there = dict(_sizes(lake.bucket, f"{table}/"))
    logged = _logged(lake, table)
    staged = {file.key for file in files}
    for file in files:
        name = f"{table}/{file.key}"
        if file.key not in logged:
            found.note(Kind.NOT_IN_LOG, name)
        if there.get(name) != file.size:
            found.note(Kind.NOT_IN_LAKE, name, f"{there.get(name, 'no')} bytes instead of {file.size}")
    for path in sorted(logged - staged):
        found.note(Kind.UNKNOWN_IN_LOG, f"{table}/{path}")


def _logged(lake: Lake, table: str) -> set[str]:
    uri = lake.uri(table)
    try:
        if not DeltaTable.is_deltatable(uri, storage_options=lake.options):
            return set()
        return set(data_files(DeltaTable(uri, storage_options=lake.options))["path"])
    except STORE_ERRORS as error:
        raise storage_error(error, f"reading the log of {table}") from error


def _sizes(bucket: Bucket, prefix: str | None) -> Iterator[tuple[str, int]]:
    """The keys of a bucket with their sizes, in order."""
    try:
        for entry in chain.from_iterable(obstore.list(bucket, prefix)):
            yield entry["path"], entry["size"]
    except BaseError as error:
        raise storage_error(error, "listing a bucket") from error
