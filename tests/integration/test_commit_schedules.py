"""Any schedule of stagings, crashes and leaders that overtake each other leaves each row visible once."""

import contextlib
import os
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
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
from marketlake.pipeline.ingest.committer import Committer, LeadershipLostError, Step

from tests import servers
from tests.integration.committing import CrashError, World

SCHEDULES = int(os.environ.get("MARKETLAKE_SCHEDULES", "200"))
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
            connection.execute(
                "truncate ledger, ledger_conflict, data_file, staged_unit, commit_intent, outbox"
            )
        self.world = World(self.postgres, self.folder / uuid4().hex)

    @rule(files=FILES)
    def stage(self, files: list[int]) -> None:
        self.world.stage(files, rows=1)

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


@pytest.mark.timeout(1800)
def test_no_schedule_loses_or_doubles_a_row(postgres_server: servers.Postgres, tmp_path: Path) -> None:
    with Postgres(
        postgres_server.create_database(f"schedules{uuid4().hex[:8]}"), application="test"
    ) as postgres:
        migrate(postgres)
        Schedules.postgres, Schedules.folder = postgres, tmp_path
        run_state_machine_as_test(
            Schedules,
            settings=settings(
                max_examples=SCHEDULES,
                stateful_step_count=8,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    assert Schedules.reached == set(Step)
