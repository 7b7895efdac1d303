"""The ledger: which version of each archive file is collected, with its checksum and its result.

A file that the venue replaced is a new version and a recorded conflict; nothing is overwritten silently. Who
works on a file holds :func:`file_lock`.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any
from uuid import UUID

from marketlake.domain.archive import ArchiveFile, Selection
from marketlake.infrastructure.postgres import Connection, Postgres
from marketlake.infrastructure.postgres.locks import do_not_wait, hold


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
    bronze_version: int | None
    """Version of the bronze Delta table that holds the rows; None without rows."""
    batch_id: UUID
    collected_at: datetime
    refined_at: datetime | None
    """When silver took it in; None: it is still to be refined."""

    def is_of(self, file: ArchiveFile) -> bool:
        """Return whether the venue still lists the file that was collected."""
        return self.etag == file.etag and self.size == file.size


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
    """The result of collecting a file."""

    sha256: str
    header: bool
    rows: int
    quarantined: int
    first_day: date | None
    last_day: date | None
    landing_key: str
    landing_version_id: str | None
    bronze_version: int | None


_COLUMNS = ", ".join(field.name for field in fields(LedgerEntry))
_CURRENT = f"select distinct on (venue, key) {_COLUMNS} from ledger"  # noqa: S608 - names of our own columns


def current(connection: Connection, venue: str, keys: Sequence[str]) -> dict[str, LedgerEntry]:
    """Return the newest entry of each of these files that has one, by key."""
    rows = connection.execute(
        f"{_CURRENT} where venue = %s and key = any(%s) order by venue, key, version desc",
        [venue, list(keys)],
    ).fetchall()
    return {row["key"]: LedgerEntry(**row) for row in rows}


def collected_keys(connection: Connection, venue: str, *, market: str | None = None) -> set[str]:
    """Return the keys of all collected files of a venue, or of one of its markets."""
    rows = connection.execute(
        "select distinct key from ledger where venue = %(venue)s"
        " and (%(market)s::text is null or market = %(market)s)",
        {"venue": venue, "market": market},
    ).fetchall()
    return {row["key"] for row in rows}


def record(connection: Connection, file: ArchiveFile, receipt: Receipt, *, batch_id: UUID) -> LedgerEntry:
    """Record a collected file, within the caller's transaction; the caller holds the file's lock.

    The same checksum again renews the entry; another one is the next version, and a conflict is recorded.

    Returns:
        The file's newest entry.
    """
    former = current(connection, file.venue, [file.key]).get(file.key)
    if former is None:
        version = 1
    elif former.sha256 == receipt.sha256:
        version = former.version
    else:
        version = former.version + 1
        connection.execute(
            "insert into ledger_conflict (venue, key, version, former_version, former_sha256, sha256,"
            " former_etag, etag) values (%s, %s, %s, %s, %s, %s, %s, %s)",
            [
                file.venue,
                file.key,
                version,
                former.version,
                former.sha256,
                receipt.sha256,
                former.etag,
                file.etag,
            ],
        )
    values: dict[str, Any] = {
        "venue": file.venue,
        "key": file.key,
        "version": version,
        "market": file.market,
        "data_type": file.data_type,
        "symbol": file.symbol,
        "interval": file.interval,
        "file_start": file.start,
        "file_end": file.end,
        "etag": file.etag,
        "size": file.size,
        "last_modified": file.last_modified,
        "batch_id": batch_id,
        **{field.name: getattr(receipt, field.name) for field in fields(receipt)},
    }
    names = ", ".join(values)
    places = ", ".join(f"%({name})s" for name in values)
    renewed = ", ".join(
        f"{name} = excluded.{name}" for name in values if name not in {"venue", "key", "version"}
    )
    row = connection.execute(
        f"insert into ledger ({names}) values ({places})"  # noqa: S608 - names of our own columns
        f" on conflict (venue, key, version) do update set {renewed}, collected_at = now(), refined_at = null"
        f" returning {_COLUMNS}",
        values,
    ).fetchone()
    return LedgerEntry(**row or {})


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


def unrefined(connection: Connection, selection: Selection) -> list[LedgerEntry]:
    """Return the newest entries of the selected datasets and symbols that are not refined, of whatever days."""
    rows = connection.execute(
        f"select * from ({_CURRENT} order by venue, key, version desc) newest"  # noqa: S608 - as above
        " where refined_at is null and venue = %(venue)s"
        " and (%(market)s::text is null or market = %(market)s)"
        " and (%(data_type)s::text is null or data_type = %(data_type)s)"
        " and (%(interval)s::text is null or interval = %(interval)s)"
        " and (%(symbols)s::text[] is null or symbol = any(%(symbols)s)) order by key",
        {
            "venue": selection.venue,
            "market": selection.market,
            "data_type": selection.data_type,
            "interval": selection.interval,
            "symbols": list(selection.symbols) or None,
        },
    ).fetchall()
    return [LedgerEntry(**row) for row in rows]


def former_days(connection: Connection, entries: Iterable[LedgerEntry]) -> list[tuple[date, date]]:
    """Return first and last day of the versions that these entries replaced: silver has to rewrite those, too."""
    replaced = [(entry.venue, entry.key, entry.version) for entry in entries if entry.version > 1]
    ranges: list[tuple[date, date]] = []
    for venue, key, version in replaced:
        row = connection.execute(
            "select first_day, last_day from ledger where venue = %s and key = %s and version = %s",
            [venue, key, version - 1],
        ).fetchone()
        if row and row["first_day"] and row["last_day"]:
            ranges.append((row["first_day"], row["last_day"]))
    return ranges


def mark_refined(connection: Connection, entries: Iterable[LedgerEntry]) -> int:
    """Mark these entries as refined, except those renewed meanwhile; return how many."""
    marked = 0
    for entry in entries:
        marked += connection.execute(
            "update ledger set refined_at = now() where venue = %s and key = %s and version = %s"
            " and collected_at = %s",
            [entry.venue, entry.key, entry.version, entry.collected_at],
        ).rowcount
    return marked


def file_lock(postgres: Postgres, venue: str, key: str) -> AbstractContextManager[Connection]:
    """Hold the platform-wide lock of one archive file, without waiting for it."""
    return hold(postgres, "file", venue, key, wait=do_not_wait)
