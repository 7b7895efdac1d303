"""The schema, as numbered SQL files in this folder; a released file is never edited, only followed."""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files

from marketlake.errors import MarketlakeError
from marketlake.infrastructure.postgres.connections import Connection, Postgres

_LOCK = 0x6D61726B65740001
"""Advisory lock under which the schema changes: any number, the same in every version of this program."""
_NAME = re.compile(r"(\d{4})_\w+\.sql")


class SchemaError(MarketlakeError):
    """The database's schema is not one that this program can work with; the message says what to do."""

    code = "database-schema"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Digest by which an edited file is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def packaged() -> tuple[Migration, ...]:
    """Return the migrations that come with this program, in order."""
    found = [(match, entry) for entry in files(__name__).iterdir() if (match := _NAME.fullmatch(entry.name))]
    return tuple(
        sorted(
            (Migration(int(match.group(1)), entry.name, entry.read_text()) for match, entry in found),
            key=lambda migration: migration.version,
        )
    )


def migrate(postgres: Postgres, migrations: tuple[Migration, ...] | None = None) -> int:
    """Migrate the schema to this program's version, in one transaction. Many may call it at once.

    Args:
        postgres: the database.
        migrations: the steps; None: :func:`packaged`.

    Returns:
        How many migrations were applied; 0 when nothing was to do.

    Raises:
        SchemaError: the database was migrated by a newer program, or by one whose files were different.
        DatabaseUnavailableError: it does not answer.
    """
    steps = packaged() if migrations is None else migrations
    with postgres.transaction() as connection:
        applied = _applied(connection) if _exists(connection) else {}
        if not _missing(steps, applied):
            return 0
        connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        connection.execute(
            "create table if not exists schema_version (version integer primary key, name text not null,"
            " sha256 text not null, applied_at timestamptz not null default now())"
        )
        missing = _missing(steps, _applied(connection))
        for step in missing:
            connection.execute(step.sql.encode())
            connection.execute(
                "insert into schema_version (version, name, sha256) values (%s, %s, %s)",
                [step.version, step.name, step.sha256],
            )
        return len(missing)


def _exists(connection: Connection) -> bool:
    row = connection.execute("select to_regclass('schema_version') is not null as there").fetchone()
    return bool(row and row["there"])


def _applied(connection: Connection) -> dict[int, str]:
    rows = connection.execute("select version, sha256 from schema_version").fetchall()
    return {row["version"]: row["sha256"] for row in rows}


def _missing(steps: tuple[Migration, ...], applied: dict[int, str]) -> list[Migration]:
    known = {step.version: step for step in steps}
    newer = sorted(set(applied) - set(known))
    if newer:
        raise SchemaError(
            f"the database's schema is at version {newer[-1]}, this program knows up to "
            f"{max(known, default=0)}: use the release of marketlake that the stack was deployed with, or a "
            "newer one."
        )
    edited = [step.name for step in steps if applied.get(step.version, step.sha256) != step.sha256]
    if edited:
        raise SchemaError(
            f"{', '.join(edited)} is not the file that the database was migrated with: restore it, and put "
            "the change into a new migration."
        )
    return [step for step in steps if step.version not in applied]
