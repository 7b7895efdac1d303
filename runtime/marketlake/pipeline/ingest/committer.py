"""The committer: the one process that puts what is staged into the tables' logs.

For each commit, in this order: the intent in PostgreSQL (which units, under which number), the commit in the table's
log, and the units' end in PostgreSQL. Killed between any two of these, the next leader looks into the log for the
number of the intent that is open, and goes on from there. Nobody writes under the epoch of a former leader, neither
in PostgreSQL (each transaction proves the epoch) nor in the log (:meth:`TableLog.fence`).
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from uuid import UUID

from marketlake.errors import MarketlakeError
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.postgres import Connection, DatabaseUnavailableError, Postgres
from marketlake.infrastructure.postgres.locks import LockHeldError, hold
from marketlake.infrastructure.storage.delta import DataFile, TableShape
from marketlake.infrastructure.storage.errors import (
    CommitConflictError,
    StorageError,
    StorageFullError,
    TableSchemaError,
)
from marketlake.infrastructure.storage.stores import Lake
from marketlake.infrastructure.storage.table_log import TableLog
from marketlake.pipeline.contracts.table_type import UnsupportedDatasetError
from marketlake.pipeline.ingest import staging
from marketlake.pipeline.ingest.staging import Owner, StagedUnit
from marketlake.retry import Backoff, RetryStoppedError, retry

log = logging.getLogger(__name__)

UNITS_AT_ONCE = 500
"""Units of one commit."""
_LOOK_EVERY_S = 1.0
"""How often is looked for staged units of which no word came."""
_BACKOFF = Backoff(first_wait_s=0.5, longest_wait_s=5.0)


class Step(StrEnum):
    """The moments between two steps of a commit, at which a crash is repaired by the next leader."""

    LEADING = "leading"
    FENCED = "fenced"
    INTENDED = "intended"
    COMMITTED = "committed"
    RECORDED = "recorded"


class LeadershipLostError(MarketlakeError):
    """Another process commits now."""

    code = "leadership-lost"
    transient = True


class LogDivergedError(MarketlakeError):
    """A table's log is not what PostgreSQL says about it: somebody else wrote to it, or it is another lake's."""

    code = "log-diverged"


_TROUBLE = (
    StorageError,
    StorageFullError,
    CommitConflictError,
    LogDivergedError,
    TableSchemaError,
    UnsupportedDatasetError,
)
"""What may befall one table."""
_PASSING = (DatabaseUnavailableError, *_TROUBLE)


@dataclass(frozen=True, slots=True)
class Intent:
    """A commit that was decided."""

    table: str
    sequence: int
    units: tuple[StagedUnit, ...]
    added: tuple[DataFile, ...]
    removed: tuple[DataFile, ...]
    arranged: frozenset[str]
    """Keys of those whose rows are only arranged anew."""


def _unobserved(_: Step) -> None:
    """Nobody watches."""


class Committer:
    """Commits what is staged, as long as it leads; any number of processes may run one.

    Args:
        postgres: where units are staged.
        lake: where the tables are.
        shape_of: returns the table of a name, as units have it.
        owner: who staged the units.
        reached: called between two steps; for tests, which end the process there.
    """

    def __init__(
        self,
        postgres: Postgres,
        lake: Lake,
        *,
        shape_of: Callable[[str], TableShape],
        owner: Owner,
        reached: Callable[[Step], None] = _unobserved,
    ) -> None:
        self._postgres = postgres
        self._lake = lake
        self._shape_of = shape_of
        self._owner = owner
        self._reached = reached
        self._logs: dict[str, TableLog] = {}
        self._epoch = 0

    def run(self, stop: threading.Event) -> None:
        """Lead whenever no other process does, until `stop` is set; outages are waited out."""
        while not stop.is_set():
            try:
                retry(
                    partial(self._lead, stop),
                    backoff=_BACKOFF,
                    on=_PASSING,
                    wait=stop.wait,
                )
            except (RetryStoppedError, LockHeldError):
                return
            except LeadershipLostError as error:
                log.warning("%s", error)

    def _lead(self, stop: threading.Event) -> None:
        with hold(self._postgres, "committer", wait=stop.wait) as session:
            session.execute(f"listen {staging.WAKE}")
            self.take_over()
            while not stop.is_set():
                busy = self.commit_waiting()
                session.execute("")  # an error if the lock was lost with the session
                if not busy:
                    next(session.notifies(timeout=_LOOK_EVERY_S, stop_after=1), None)

    def take_over(self) -> None:
        """Begin an epoch. The caller holds the committer's lock."""
        with self._postgres.transaction() as connection:
            row = connection.execute("update committer set epoch = epoch + 1 returning epoch").fetchone()
        self._epoch = int(row["epoch"]) if row else 0
        self._logs = {}
        self._reached(Step.LEADING)

    def commit_waiting(self) -> int:
        """Commit to each table what waits for it; return how many commits were made.

        A table that fails does not hold up the others.

        Raises:
            LeadershipLostError: another process has begun an epoch.
            DatabaseUnavailableError: the database is away.
        """
        with self._transaction() as connection:
            tables = staging.waiting_tables(connection)
        made, failed = 0, None
        for table in tables:
            try:
                made += self._commit_to(table)
            except _TROUBLE as error:
                log.warning("%s", error)
                self._logs.pop(table, None)
                failed = error
        if failed is not None and not made:
            raise failed
        return made

    def _commit_to(self, table: str) -> int:
        if table not in self._logs:
            self._logs[table] = self._repaired(table)
        # Read before the intent, which proves the epoch: who takes over later fences what was read here.
        self._logs[table].read()
        intent = self._intend(table)
        if intent is None:
            return 0
        # A commit has many causes; it shows in the trace of the first, with links to those of the others.
        first, *others = (unit.traceparent for unit in intent.units)
        with telemetry.span(
            "bronze commit", traceparent=first, links=others, table=table, units=len(intent.units)
        ):
            self._reached(Step.INTENDED)
            self._write(self._logs[table], intent)
            self._reached(Step.COMMITTED)
            self._record(intent)
            self._reached(Step.RECORDED)
        try:
            self._logs[table].shorten()
        except _TROUBLE as error:  # the commit is made; the next one tries again
            log.warning("%s", error)
        return 1

    def _repaired(self, table: str) -> TableLog:
        """The table's log, fenced, and with the end of a commit that a former leader left open."""
        opened = TableLog(self._lake, self._shape_of(table))
        last = opened.fence()
        opened.widen()
        self._reached(Step.FENCED)
        with self._transaction() as connection:
            row = connection.execute(
                "select max(sequence) filter (where committed) as recorded,"
                " max(sequence) filter (where not committed) as open"
                " from commit_intent where table_name = %s",
                [table],
            ).fetchone() or {"recorded": None, "open": None}
            recorded, left = row["recorded"] or 0, row["open"]
            intent = self._intent(connection, table, left) if left else None
        if last not in {recorded, left}:
            raise LogDivergedError(
                f"{table}: its log ends with commit {last} of ours, but PostgreSQL knows {recorded}"
                f"{f' and intends {left}' if left else ''}. The lake is another one, or was set back: nothing is "
                "written to the table. `marketlake lake rebuild` makes it anew from landing."
            )
        if intent is not None:
            if last != intent.sequence:
                self._write(opened, intent)
            self._record(intent)
        return opened

    def _intend(self, table: str) -> Intent | None:
        with self._transaction() as connection:
            units = staging.waiting(connection, table, most=UNITS_AT_ONCE)
            chosen = self._chosen(connection, units)
            if not chosen:
                return None
            row = connection.execute(
                "insert into commit_intent (table_name, sequence, epoch, units)"
                " select %s, coalesce(max(sequence), 0) + 1, %s, %s from commit_intent where table_name = %s"
                " returning sequence",
                [table, self._epoch, [unit.id for unit in chosen], table],
            ).fetchone()
            connection.execute(
                "update staged_unit set state = 'intended' where id = any(%s)", [[unit.id for unit in chosen]]
            )
            return self._intent(connection, table, int(row["sequence"]) if row else 0)

    def _chosen(self, connection: Connection, units: Sequence[StagedUnit]) -> list[StagedUnit]:
        """The units that can be committed now; those that never can are refused."""
        contested = dict(self._owner.contested(connection, units))
        live = self._live(connection, [number for unit in units for number in unit.replaces])
        chosen: list[StagedUnit] = []
        taken: set[int] = set()
        for unit in units:
            if unit.id not in contested and not live.issuperset(unit.replaces):
                contested[unit.id] = "a data file that it replaces was replaced meanwhile"
            if unit.id in contested:
                self._refuse(connection, unit, contested[unit.id])
            elif taken.isdisjoint(unit.replaces):
                taken.update(unit.replaces)
                chosen.append(unit)
        return chosen

    def _live(self, connection: Connection, ids: Sequence[int]) -> set[int]:
        rows = connection.execute(
            "select id from data_file where id = any(%s) and state = 'live'", [list(ids)]
        ).fetchall()
        return {row["id"] for row in rows}

    def _refuse(self, connection: Connection, unit: StagedUnit, reason: str) -> None:
        log.info("%s: the unit %s is refused: %s", unit.table, unit.id, reason)
        connection.execute(
            "update staged_unit set state = 'refused', reason = %s where id = %s", [reason, unit.id]
        )
        connection.execute(
            "update data_file set state = 'discarded', ended_at = now() where unit_id = %s", [unit.id]
        )
        self._owner.refused(connection, unit)

    def _intent(self, connection: Connection, table: str, sequence: int) -> Intent:
        row = connection.execute(
            "select units from commit_intent where table_name = %s and sequence = %s", [table, sequence]
        ).fetchone() or {"units": []}
        ids: list[UUID] = row["units"]
        units = staging.units_of(connection, ids)
        added = connection.execute(
            "select id, unit_id from data_file where unit_id = any(%s) order by id", [ids]
        ).fetchall()
        removed = [number for unit in units for number in unit.replaces]
        arranging = {unit.id for unit in units if not unit.data_change}
        quiet = {row["id"] for row in added if row["unit_id"] in arranging}
        quiet.update(number for unit in units if unit.id in arranging for number in unit.replaces)
        files = staging.files_of(connection, [*removed, *(row["id"] for row in added)])
        return Intent(
            table,
            sequence,
            tuple(units),
            tuple(files[row["id"]] for row in added),
            tuple(files[number] for number in removed),
            frozenset(files[number].key for number in quiet),
        )

    def _write(self, opened: TableLog, intent: Intent) -> None:
        """Commit to the log, unless it holds the commit; look again after whatever went wrong."""
        if opened.number != intent.sequence - 1:
            raise LogDivergedError(
                f"{intent.table}: commit {intent.sequence} is due, but its log ends with commit {opened.number} of "
                "ours: somebody else writes under our name. Nothing is written to it; `marketlake lake rebuild` "
                "makes it anew from landing."
            )
        gone = opened.gone(file.key for file in intent.removed)
        if gone:
            raise LogDivergedError(
                f"{intent.table}: the data files {', '.join(sorted(gone)[:3])} should be replaced, and are not in "
                "its log: somebody else wrote to the table. Nothing is written to it; `marketlake lake rebuild` "
                "makes it anew from landing."
            )
        try:
            opened.commit(intent.sequence, intent.added, intent.removed, arranged=intent.arranged)
        except (StorageError, CommitConflictError):
            if opened.read() != intent.sequence:
                raise

    def _record(self, intent: Intent) -> None:
        ids = [unit.id for unit in intent.units]
        removed = [number for unit in intent.units for number in unit.replaces]
        with self._transaction() as connection:
            connection.execute(
                "update data_file set state = 'live' where unit_id = any(%s) and state = 'staged'", [ids]
            )
            connection.execute(
                "update data_file set state = 'replaced', ended_at = now() where id = any(%s)", [removed]
            )
            connection.execute("update staged_unit set state = 'committed' where id = any(%s)", [ids])
            connection.execute(
                "update commit_intent set committed = true where table_name = %s and sequence = %s",
                [intent.table, intent.sequence],
            )
            self._owner.committed(connection, intent.units)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction that only the leader can commit: who takes over waits for it, and it fails after that."""
        with self._postgres.transaction() as connection:
            row = connection.execute("select epoch from committer for share").fetchone()
            if row is None or row["epoch"] != self._epoch:
                raise LeadershipLostError(f"the epoch {self._epoch} of this committer is over")
            yield connection
