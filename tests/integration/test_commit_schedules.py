"""Any schedule of stagings, compactions, crashes and leaders that overtake each other leaves each row visible once."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from marketlake.infrastructure.postgres import Postgres, migrate
from marketlake.infrastructure.storage.errors import CommitConflictError
from marketlake.infrastructure.storage.table_log import TableLog
from marketlake.pipeline.ingest.committer import Committer, Intent, LeadershipLostError, Step

from tests import servers
from tests.integration.committing import CrashError, World

PARTS = 2
"""Into which the schedules are cut, for a machine with two cores."""
CAUGHT_WITHIN = 50
"""Schedules within which a defect in the protocol is noticed."""
TABLES = ("ledger_conflict", "ledger", "outbox", "commit_intent", "staged_unit", "data_file")
DEPOSED = (LeadershipLostError, CommitConflictError)
"""What a leader meets when another one has taken over."""
FILES = st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True).map(sorted)


class Schedules(RuleBasedStateMachine):
    """Schedules on one database, each with a table of its own."""

    postgres: ClassVar[Postgres]
    folder: ClassVar[Path]
    reached: ClassVar[set[Step]] = set()
    """In all schedules, to be sure that no step is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.leader: Committer | None = None

    @initialize()
    def begin(self) -> None:
        with self.postgres.transaction() as connection:
            for table in TABLES:  # a truncation would make new files, which takes longer than all the rest
                connection.execute(f"delete from {table}")  # noqa: S608 - names of our own
        self.world = World(self.postgres, self.folder / uuid4().hex)

    @rule(files=FILES)
    def stage(self, files: list[int]) -> None:
        self.world.stage(files, rows=1)

    @rule()
    def compact(self) -> None:
        self.world.compact()

    @rule()
    def commit(self) -> None:
        if self.leader is None:
            self.leader = self.world.committer(self.reached.add)
        try:
            self.leader.commit_waiting()
        except DEPOSED:
            self.leader = None

    @rule(step=st.sampled_from(Step))
    def crash(self, step: Step) -> None:
        def reached(here: Step) -> None:
            if here is step:
                raise CrashError

        with contextlib.suppress(CrashError):
            self.world.committer(reached).commit_waiting()
        self.leader = None

    @rule(step=st.sampled_from(Step), files=FILES)
    def overtake(self, step: Step, files: list[int]) -> None:
        """A leader is stopped between two steps, another one leads meanwhile, and then it goes on."""

        def reached(here: Step) -> None:
            if here is step:
                self.leader = self.world.committer()
                self.leader.commit_waiting()
                self.world.stage(files, rows=1)

        with contextlib.suppress(*DEPOSED):
            self.world.committer(reached).commit_waiting()

    @invariant()
    def nothing_is_doubled(self) -> None:
        assert all(len(versions) == 1 for versions in self.world.visible().values())

    def teardown(self) -> None:
        leader = self.world.committer()
        while leader.commit_waiting():
            pass
        self.world.assert_consistent(rows=1)


def run(count: int, first: int, *phases: Phase) -> None:
    """Try so many schedules, drawn from a seed."""
    run_state_machine_as_test(
        seed(first)(Schedules),
        settings=settings(
            max_examples=count,
            stateful_step_count=8,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=phases or tuple(Phase),
            print_blob=True,
        ),
    )


@pytest.fixture
def schedules(postgres_server: servers.Postgres, tmp_path: Path) -> Iterator[Callable[..., None]]:
    database = postgres_server.create_database(f"schedules{uuid4().hex[:8]}")
    with psycopg.connect(database.dsn) as connection:
        # The server itself is not killed here: no schedule has to wait for its disk.
        connection.execute("alter role current_user set synchronous_commit = off")
    with Postgres(database, application="test") as postgres, _in_memory(tmp_path) as folder:
        migrate(postgres)
        Schedules.postgres, Schedules.folder = postgres, folder
        yield run


@contextlib.contextmanager
def _in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where the system has such."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else otherwise) as folder:
        yield Path(folder)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_schedule_loses_or_doubles_a_row(
    schedules: Callable[..., None], part: int, request: pytest.FixtureRequest
) -> None:
    option = request.config.getoption
    Schedules.reached = set()
    schedules(option("--chaos-schedules") // PARTS, option("--chaos-seed") * PARTS + part)
    assert Schedules.reached == set(Step)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """Who was deposed goes on in PostgreSQL and in the log."""
    patch.setattr(TableLog, "fence", TableLog.read)
    patch.setattr(Committer, "_transaction", lambda self: self._postgres.transaction())


def no_number_in_the_log(patch: pytest.MonkeyPatch) -> None:
    """A commit does not carry its number, so that nobody can tell whether it was made."""
    nobody = {"appId": "nobody", "version": 1}
    patch.setattr("marketlake.infrastructure.storage.table_log.transaction", lambda _: nobody)


def ledger_first(patch: pytest.MonkeyPatch) -> None:
    """The ledger tells of rows that the log does not have yet."""
    write, record = Committer._write, Committer._record
    opened: dict[Committer, TableLog] = {}

    def recorded(self: Committer, log: TableLog, intent: Intent) -> None:
        opened[self] = log
        record(self, intent)

    def written(self: Committer, intent: Intent) -> None:
        write(self, opened[self], intent)

    patch.setattr(Committer, "_write", recorded)
    patch.setattr(Committer, "_record", written)


@pytest.mark.parametrize("defect", [no_fence, no_number_in_the_log, ledger_first])
def test_a_defect_in_the_protocol_is_noticed(
    schedules: Callable[..., None],
    defect: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defect(monkeypatch)
    with pytest.raises(Exception, match=r".") as noticed:
        schedules(CAUGHT_WITHIN, 1, Phase.generate)
    assert not isinstance(noticed.value, (NameError, AttributeError, TypeError)), "of the defect itself"
