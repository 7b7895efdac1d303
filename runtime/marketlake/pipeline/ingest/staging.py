"""What waits to be committed: units of data files, in PostgreSQL.

A unit becomes visible in its table as a whole, or not at all. Whoever made it is its owner: it keeps in `content` what
the owner needs to know once the unit is committed or refused, and it is opaque here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from psycopg.types.json import Jsonb

from marketlake.infrastructure.postgres import Connection
from marketlake.infrastructure.storage.delta import DataFile

WAKE = "marketlake_staged"
"""Channel on which PostgreSQL tells that something was staged."""


@dataclass(frozen=True, slots=True)
class StagedUnit:
    """Data files that are committed together."""

    id: UUID
    table: str
    """Below the lake's root, e.g. ``bronze/binance_klines``."""
    replaces: tuple[int, ...]
    """Ids of data files that are taken away in the same commit."""
    content: Mapping[str, Any]
    """What the owner put there."""
    traceparent: str | None = None
    """W3C trace context of what staged it."""
    data_change: bool = True
    """False if it only arranges rows anew that are visible already."""


class Owner(Protocol):
    """Whoever stages units, as the committer sees it. All calls are within the committer's transaction."""

    def contested(self, connection: Connection, units: Sequence[StagedUnit]) -> Mapping[UUID, str]:
        """Return which units must not be committed, since what they were made from has changed, and why.

        Of units that contest each other it lets the first one pass.
        """
        ...

    def committed(self, connection: Connection, units: Sequence[StagedUnit]) -> None:
        """Record that these units are visible."""
        ...

    def refused(self, connection: Connection, unit: StagedUnit) -> None:
        """Record that a unit will never be visible: its work has to be done again."""
        ...


def add_files(
    connection: Connection, unit_id: UUID, table: str, files: Sequence[DataFile]
) -> tuple[int, ...]:
    """Write down data files that lie in the store, and return their ids in order."""
    ids = []
    for file in files:
        row = connection.execute(
            "insert into data_file (table_name, path, size, rows, statistics, unit_id)"
            " values (%s, %s, %s, %s, %s, %s) returning id",
            [table, file.key, file.size, file.rows, file.statistics, unit_id],
        ).fetchone()
        ids.append(int(row["id"]) if row else 0)
    return tuple(ids)


def stage(connection: Connection, unit: StagedUnit) -> None:
    """Hand a unit, whose files were written down, to the committer of its table within the caller's transaction."""
    connection.execute(
        "insert into staged_unit (id, table_name, replaces, content, traceparent, data_change)"
        " values (%s, %s, %s, %s, %s, %s)",
        [
            unit.id,
            unit.table,
            list(unit.replaces),
            Jsonb(dict(unit.content)),
            unit.traceparent,
            unit.data_change,
        ],
    )
    connection.execute("select pg_notify(%s, %s)", [WAKE, unit.table])


def files_of(connection: Connection, ids: Sequence[int]) -> dict[int, DataFile]:
    """Return data files by id, whatever their state."""
    rows = connection.execute(
        "select id, path, size, rows, statistics from data_file where id = any(%s)", [list(ids)]
    ).fetchall()
    return {row["id"]: DataFile(row["path"], row["size"], row["rows"], row["statistics"]) for row in rows}


def live_tables(connection: Connection) -> list[str]:
    """Return the tables that have data files."""
    rows = connection.execute(
        "select distinct table_name from data_file where state = 'live' order by table_name"
    ).fetchall()
    return [row["table_name"] for row in rows]


def live(connection: Connection, table: str) -> dict[int, DataFile]:
    """Return the data files of a table that are visible, by id."""
    rows = connection.execute(
        "select id, path, size, rows, statistics from data_file where state = 'live' and table_name = %s order by id",
        [table],
    ).fetchall()
    return {row["id"]: DataFile(row["path"], row["size"], row["rows"], row["statistics"]) for row in rows}


def forget(connection: Connection) -> None:
    """Note that no table has anything, and that the leader has to look at all logs anew."""
    connection.execute(
        "update committer set epoch = epoch + 1"
    )  # waits for the leader's transaction, and ends it
    connection.execute(
        "update staged_unit set state = 'refused', reason = 'the lake was given up'"
        " where state in ('staged', 'intended')"
    )
    connection.execute(
        "update data_file set state = 'discarded', ended_at = now() where state in ('staged', 'live')"
    )
    connection.execute("delete from commit_intent")


def prune_units(connection: Connection, *, kept: timedelta) -> int:
    """Delete units that came to an end longer ago, and the intents of their commits; return how many units.

    The last intent of each table stays: its number goes on from there.
    """
    connection.execute(
        "delete from commit_intent old where committed and intended_at < now() - %s and exists (select from"
        " commit_intent newer where newer.table_name = old.table_name and newer.sequence > old.sequence)",
        [kept],
    )
    return connection.execute(
        "delete from staged_unit where state in ('committed', 'refused') and staged_at < now() - %s"
        " and not exists (select from commit_intent where not committed and staged_unit.id = any(units))",
        [kept],
    ).rowcount


def ended_files(connection: Connection, *, kept: timedelta) -> list[int]:
    """Return the ids of data files that were replaced or given up longer ago."""
    rows = connection.execute(
        "select id from data_file where state in ('replaced', 'discarded') and ended_at < now() - %s", [kept]
    ).fetchall()
    return [row["id"] for row in rows]


def delete_files(connection: Connection, ids: Sequence[int]) -> int:
    """Delete what is known of data files that nobody names any more; return how many."""
    return connection.execute("delete from data_file where id = any(%s)", [list(ids)]).rowcount


def waiting(connection: Connection, table: str, *, most: int) -> list[StagedUnit]:
    """Return units that wait for a commit to this table, the oldest first."""
    rows = connection.execute(
        "select id, table_name, replaces, content, traceparent, data_change from staged_unit"
        " where table_name = %s and state = 'staged' order by staged_at, id limit %s",
        [table, most],
    ).fetchall()
    return [_unit(row) for row in rows]


def waiting_tables(connection: Connection) -> list[str]:
    """Return the tables for which something waits or a commit is open."""
    rows = connection.execute(
        "select table_name from staged_unit where state = 'staged'"
        " union select table_name from commit_intent where not committed order by table_name"
    ).fetchall()
    return [row["table_name"] for row in rows]


def units_of(connection: Connection, ids: Sequence[UUID]) -> list[StagedUnit]:
    """Return units by id, the oldest first."""
    rows = connection.execute(
        "select id, table_name, replaces, content, traceparent, data_change from staged_unit where id = any(%s)"
        " order by staged_at, id",
        [list(ids)],
    ).fetchall()
    return [_unit(row) for row in rows]


def _unit(row: Mapping[str, Any]) -> StagedUnit:
    return StagedUnit(
        row["id"],
        row["table_name"],
        tuple(row["replaces"]),
        row["content"],
        row["traceparent"],
        row["data_change"],
    )
