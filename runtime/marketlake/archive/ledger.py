"""The ledger: which version of each archive file is collected, with its checksum and its result.

A file that the venue replaced is a new version and a recorded conflict; nothing is overwritten silently. Entries are
written by the owner of staged units alone (:mod:`marketlake.archive.collection.admission`), one transaction at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from marketlake.domain.archive import ArchiveFile, Frequency, Selection, Series
from marketlake.infrastructure.postgres import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One version of one archive file."""

    venue: str
    key: str
    version: int
    """1 for the first that was collected."""
    market: str
    data_type: str
    symbol: str
    interval: str | None
    frequency: Frequency
    file_start: date
    file_end: date
    sha256: str
    etag: str
    """As the venue listed it."""
    size: int
    """Bytes."""
    last_modified: datetime
    header: bool
    """Whether the CSV began with a header."""
    rows: int
    """Rows written to bronze."""
    quarantined: int
    first_day: date | None
    """First UTC day of the rows; None without rows."""
    last_day: date | None
    landing_key: str
    landing_version_id: str | None
    data_file_id: int | None
    """The data file of bronze that holds the rows; None: bronze does not have the file."""
    batch_id: UUID
    collected_at: datetime
    refined_at: datetime | None
    """When silver took it in; None: it is still to be refined."""

    def is_of(self, file: ArchiveFile) -> bool:
        """Return whether the venue still lists the file that was collected."""
        return self.etag == file.etag and self.size == file.size

    @property
    def file(self) -> ArchiveFile:
        """The file, as the venue listed it."""
        return ArchiveFile(
            venue=self.venue,
            market=self.market,
            data_type=self.data_type,
            symbol=self.symbol,
            interval=self.interval,
            frequency=self.frequency,
            start=self.file_start,
            end=self.file_end,
            key=self.key,
            size=self.size,
            etag=self.etag,
            last_modified=self.last_modified,
        )

    @property
    def series(self) -> Series:
        """The series that the rows belong to."""
        return Series(
            venue=self.venue,
            market=self.market,
            data_type=self.data_type,
            symbol=self.symbol,
            interval=self.interval,
        )

    @property
    def in_bronze(self) -> bool:
        """Whether bronze has what it should have of the file."""
        return self.data_file_id is not None or not self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A file that was collected before came with another checksum."""

    venue: str
    key: str
    version: int
    former_version: int
    former_sha256: str
    sha256: str
    former_etag: str
    etag: str
    found_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The result of collecting a file, on its way to the ledger."""

    key: str
    version: int
    """1, the version of an entry with the same checksum, or the number behind that of the former entry."""
    former_version: int | None
    """Of the entry that was current when the file was collected."""
    sha256: str
    header: bool
    rows: int
    quarantined: int
    first_day: date | None
    last_day: date | None
    landing_key: str
    landing_version_id: str | None
    data_file_id: int | None


def _entry(row: dict[str, Any]) -> LedgerEntry:
    return LedgerEntry(**(row | {"frequency": Frequency(row["frequency"])}))


_COLUMNS = ", ".join(field.name for field in fields(LedgerEntry))


def current(connection: Connection, venue: str, keys: Sequence[str]) -> dict[str, LedgerEntry]:
    """Return the newest entry of each of these files that has one, by key."""
    rows = connection.execute(
        f"select {_COLUMNS} from ledger"  # noqa: S608 - names of our own columns
        " where venue = %s and key = any(%s) and superseded_at is null",
        [venue, list(keys)],
    ).fetchall()
    return {row["key"]: _entry(row) for row in rows}


def current_versions(connection: Connection, venue: str, keys: Sequence[str]) -> dict[str, int]:
    """Return the version of the newest entry of each of these files that has one, by key."""
    rows = connection.execute(
        "select key, version from ledger where venue = %s and key = any(%s) and superseded_at is null",
        [venue, list(keys)],
    ).fetchall()
    return {row["key"]: row["version"] for row in rows}


def keys_in(connection: Connection, data_file_id: int) -> set[str]:
    """Return the keys of the files whose rows a data file holds."""
    rows = connection.execute(
        "select key from ledger where data_file_id = %s and superseded_at is null", [data_file_id]
    ).fetchall()
    return {row["key"] for row in rows}


_SELECTED = (
    "venue = %(venue)s"
    " and (%(market)s::text is null or market = %(market)s)"
    " and (%(data_type)s::text is null or data_type = %(data_type)s)"
    " and (%(interval)s::text is null or interval = %(interval)s)"
    " and (%(symbols)s::text[] is null or symbol = any(%(symbols)s))"
)
"""SQL: whether an entry's series is selected; :func:`_selected` gives the values."""


def _selected(selection: Selection) -> dict[str, Any]:
    return {
        "venue": selection.venue,
        "market": selection.market,
        "data_type": selection.data_type,
        "interval": selection.interval,
        "symbols": list(selection.symbols) or None,
    }


def selected(connection: Connection, selection: Selection, *, after: str, most: int) -> list[LedgerEntry]:
    """Return the newest entries of the selected files, some at a time in the order of their keys.

    Args:
        connection: to the database.
        selection: a file is meant if it covers any of the days.
        after: the key behind which to go on; empty for the first ones.
        most: how many.
    """
    rows = connection.execute(
        f"select {_COLUMNS} from ledger where superseded_at is null and key > %(after)s and {_SELECTED}"  # noqa: S608 - names of our own
        " and (%(frequency)s::text is null or frequency = %(frequency)s)"
        " and (%(start)s::date is null or file_end >= %(start)s)"
        " and (%(end)s::date is null or file_start <= %(end)s) order by key limit %(most)s",
        {
            **_selected(selection),
            "frequency": selection.frequency,
            "start": selection.start,
            "end": selection.end,
            "after": after,
            "most": most,
        },
    ).fetchall()
    return [_entry(row) for row in rows]


def in_landing_order(connection: Connection, *, after: str, most: int) -> list[LedgerEntry]:
    """Return the newest entries of all files, some at a time in the order in which landing lists them.

    Args:
        connection: to the database.
        after: the key in landing behind which to go on; empty for the first ones.
        most: how many.
    """
    rows = connection.execute(
        f'select {_COLUMNS} from ledger where superseded_at is null and landing_key collate "C" > %s'  # noqa: S608
        ' order by landing_key collate "C" limit %s',
        [after, most],
    ).fetchall()
    return [_entry(row) for row in rows]


def rows_by_data_file(connection: Connection) -> dict[int, int]:
    """Return how many rows the files have together that each data file holds."""
    rows = connection.execute(
        "select data_file_id, sum(rows)::bigint as rows from ledger"
        " where superseded_at is null and data_file_id is not null group by data_file_id"
    ).fetchall()
    return {row["data_file_id"]: row["rows"] for row in rows}


def in_data_files(connection: Connection, numbers: Sequence[int]) -> dict[int, list[LedgerEntry]]:
    """Return the newest entries whose rows some data files hold, by data file, in the order of their keys."""
    rows = connection.execute(
        f"select {_COLUMNS} from ledger where data_file_id = any(%s) and superseded_at is null"  # noqa: S608
        " order by data_file_id, key",
        [list(numbers)],
    ).fetchall()
    return {
        number: list(group)
        for number, group in groupby(map(_entry, rows), key=lambda entry: entry.data_file_id or 0)
    }


def leave_data_files(connection: Connection, numbers: Sequence[int]) -> None:
    """Forget that former versions of files lay in some data files."""
    connection.execute(
        "update ledger set data_file_id = null where data_file_id = any(%s) and superseded_at is not null",
        [list(numbers)],
    )


def venues(connection: Connection) -> list[str]:
    """Return the venues of which files were collected."""
    rows = connection.execute("select distinct venue from ledger order by venue").fetchall()
    return [row["venue"] for row in rows]


def forget_lake(connection: Connection) -> int:
    """Note that bronze and silver hold nothing any more; return how many files were in bronze."""
    return connection.execute(
        "update ledger set data_file_id = null, refined_at = null"
        " where superseded_at is null and (data_file_id is not null or refined_at is not null)"
    ).rowcount


def collected_keys(connection: Connection, venue: str, *, market: str | None = None) -> set[str]:
    """Return the keys of all collected files of a venue, or of one of its markets."""
    rows = connection.execute(
        "select key from ledger where venue = %(venue)s and superseded_at is null"
        " and (%(market)s::text is null or market = %(market)s)",
        {"venue": venue, "market": market},
    ).fetchall()
    return {row["key"] for row in rows}


def record(
    connection: Connection, files: Sequence[ArchiveFile], receipts: Sequence[Receipt], *, batch_id: UUID
) -> list[LedgerEntry]:
    """Record collected files, within the caller's transaction.

    The same version again renews its entry; the next one supersedes it, and a conflict is recorded.

    Args:
        connection: to the database.
        files: as they were listed.
        receipts: what came of each, in the same order.
        batch_id: the batch that collected them.

    Returns:
        The files' newest entries.
    """
    venue = files[0].venue
    rows = Jsonb([_row(file, receipt) for file, receipt in zip(files, receipts, strict=True)])
    connection.execute(_CONFLICTS, {"venue": venue, "rows": rows})
    connection.execute(_SUPERSEDE, {"venue": venue, "rows": rows})
    written = connection.execute(_WRITE, {"venue": venue, "batch": batch_id, "rows": rows}).fetchall()
    return [_entry(row) for row in written]


_VALUES = {
    "key": "text",
    "version": "integer",
    "market": "text",
    "data_type": "text",
    "symbol": "text",
    "interval": "text",
    "frequency": "text",
    "file_start": "date",
    "file_end": "date",
    "etag": "text",
    "size": "bigint",
    "last_modified": "timestamptz",
    "sha256": "text",
    "header": "boolean",
    "rows": "bigint",
    "quarantined": "bigint",
    "first_day": "date",
    "last_day": "date",
    "landing_key": "text",
    "landing_version_id": "text",
    "data_file_id": "bigint",
}
"""Columns of the ledger that come with a file, and their types."""
_GIVEN = (
    f"jsonb_to_recordset(%(rows)s) as given({', '.join(f'{name} {kind}' for name, kind in _VALUES.items())})"
)
_NAMES = ", ".join(_VALUES)
_RENEWED = ", ".join(f"{name} = excluded.{name}" for name in _VALUES if name not in {"key", "version"})
_CONFLICTS = (
    "insert into ledger_conflict (venue, key, version, former_version, former_sha256, sha256, former_etag, etag)"  # noqa: S608
    " select former.venue, former.key, given.version, former.version, former.sha256, given.sha256, former.etag,"
    f" given.etag from {_GIVEN} join ledger former on former.venue = %(venue)s and former.key = given.key"
    " and former.superseded_at is null and former.version < given.version on conflict do nothing"
)
_SUPERSEDE = (
    f"update ledger former set superseded_at = now() from {_GIVEN} where former.venue = %(venue)s"  # noqa: S608
    " and former.key = given.key and former.superseded_at is null and former.version < given.version"
)
_WRITE = (
    f"insert into ledger (venue, batch_id, {_NAMES}) select %(venue)s, %(batch)s, {_NAMES} from {_GIVEN}"  # noqa: S608
    f" on conflict (venue, key, version) do update set batch_id = excluded.batch_id, {_RENEWED},"
    f" collected_at = now(), refined_at = null, superseded_at = null returning {_COLUMNS}"
)


def _row(file: ArchiveFile, receipt: Receipt) -> dict[str, Any]:
    return {
        "market": file.market,
        "data_type": file.data_type,
        "symbol": file.symbol,
        "interval": file.interval,
        "frequency": file.frequency,
        "file_start": file.start.isoformat(),
        "file_end": file.end.isoformat(),
        "etag": file.etag,
        "size": file.size,
        "last_modified": file.last_modified.isoformat(),
        **{
            field.name: value.isoformat()
            if isinstance(value := getattr(receipt, field.name), date)
            else value
            for field in fields(receipt)
            if field.name in _VALUES
        },
    }


def move(connection: Connection, moved: Mapping[int, int | None]) -> None:
    """Note that the rows of some data files, as far as they are current, lie in others now."""
    for former, successor in moved.items():
        connection.execute(
            "update ledger set data_file_id = %s where data_file_id = %s and superseded_at is null",
            [successor, former],
        )


def rehouse(
    connection: Connection, venue: str, former: Sequence[int], homes: Mapping[int, Sequence[str]]
) -> None:
    """Note that the rows of some files, as far as they lie in the former data files, lie in others now."""
    for number, keys in homes.items():
        connection.execute(
            "update ledger set data_file_id = %s where venue = %s and key = any(%s) and data_file_id = any(%s)"
            " and superseded_at is null",
            [number, venue, list(keys), list(former)],
        )


def touch(connection: Connection, file: ArchiveFile, entry: LedgerEntry) -> None:
    """Update how the venue lists a file whose bytes are those of `entry`: its rows are in the lake already."""
    connection.execute(
        "update ledger set etag = %s, size = %s, last_modified = %s"
        " where venue = %s and key = %s and version = %s",
        [file.etag, file.size, file.last_modified, entry.venue, entry.key, entry.version],
    )


def conflicts(connection: Connection, venue: str, *, keys: Sequence[str] | None = None) -> list[Conflict]:
    """Return the recorded conflicts, oldest first; of these files, or of all."""
    rows = connection.execute(
        "select venue, key, version, former_version, former_sha256, sha256, former_etag, etag, found_at"
        " from ledger_conflict where venue = %(venue)s and (%(keys)s::text[] is null or key = any(%(keys)s))"
        " order by found_at, key",
        {"venue": venue, "keys": None if keys is None else list(keys)},
    ).fetchall()
    return [Conflict(**row) for row in rows]


def unrefined_series(connection: Connection, selection: Selection) -> dict[Series, int]:
    """Return the selected series that have entries which are not refined, in order, with the rows of these."""
    rows = connection.execute(
        "select venue, market, data_type, symbol, interval, sum(rows)::bigint as rows from ledger"  # noqa: S608 - as above
        f" where refined_at is null and superseded_at is null and {_SELECTED}"
        " group by venue, market, data_type, symbol, interval"
        " order by venue, market, data_type, symbol, interval",
        _selected(selection),
    ).fetchall()
    return {Series(**{name: row[name] for name in row if name != "rows"}): row["rows"] for row in rows}


def unrefined_of(connection: Connection, series: Sequence[Series]) -> list[LedgerEntry]:
    """Return the newest entries that are not refined of some series of one dataset of a market."""
    first = series[0]
    wanted = {(one.symbol, one.interval) for one in series}
    rows = connection.execute(
        f"select {_COLUMNS} from ledger"  # noqa: S608 - as above
        " where refined_at is null and superseded_at is null and venue = %s and market = %s and data_type = %s"
        " and symbol = any(%s) order by key",
        [first.venue, first.market, first.data_type, sorted({symbol for symbol, _ in wanted})],
    ).fetchall()
    return [_entry(row) for row in rows if (row["symbol"], row["interval"]) in wanted]


def former_days(connection: Connection, entries: Iterable[LedgerEntry]) -> list[tuple[date, date]]:
    """Return first and last day of the versions that these entries replaced, back to the last that was refined.

    Silver has to rewrite those days, too: it may still hold rows of any of these versions.
    """
    replaced = [entry for entry in entries if entry.version > 1]
    rows = connection.execute(
        "select former.first_day, former.last_day from unnest(%s::text[], %s::text[], %s::integer[])"
        " as given(venue, key, version) join ledger former on former.venue = given.venue and former.key = given.key"
        " and former.version < given.version and former.version >= coalesce((select max(refined.version)"
        " from ledger refined where refined.venue = given.venue and refined.key = given.key"
        " and refined.version < given.version and refined.refined_at is not null), 1)"
        " where former.first_day is not null and former.last_day is not null",
        _lists(replaced, "venue", "key", "version"),
    ).fetchall()
    return [(row["first_day"], row["last_day"]) for row in rows]


def mark_refined(connection: Connection, entries: Sequence[LedgerEntry]) -> int:
    """Mark these entries as refined, except those renewed meanwhile; return how many."""
    return connection.execute(
        "update ledger set refined_at = now() from unnest(%s::text[], %s::text[], %s::integer[], %s::timestamptz[])"
        " as given(venue, key, version, collected_at) where ledger.venue = given.venue and ledger.key = given.key"
        " and ledger.version = given.version and ledger.collected_at = given.collected_at",
        _lists(entries, "venue", "key", "version", "collected_at"),
    ).rowcount


def _lists(entries: Sequence[LedgerEntry], *names: str) -> list[list[Any]]:
    """The values of some fields, a list for each, as ``unnest`` takes them."""
    return [[getattr(entry, name) for entry in entries] for name in names]
