"""The committer on a real PostgreSQL and a real Delta log: what is staged becomes visible once, whatever ends when."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest
from marketlake.infrastructure.postgres import Postgres, migrate
from marketlake.infrastructure.storage.delta import DataFile
from marketlake.infrastructure.storage.errors import CommitConflictError, StorageError
from marketlake.infrastructure.storage.table_log import TableLog
from marketlake.pipeline.ingest.bronze import shape_of
from marketlake.pipeline.ingest.committer import LeadershipLostError, LogDivergedError, Step

from tests import servers
from tests.integration.committing import CrashError, World, key_of
from tests.waiting import eventually


@pytest.fixture
def world(postgres_server: servers.Postgres, tmp_path: Path) -> Iterator[World]:
    database = postgres_server.create_database(f"commit{uuid4().hex[:8]}")
    with Postgres(database, application="test") as postgres:
        migrate(postgres)
        yield World(postgres, tmp_path / "lake")


def crash_at(step: Step) -> Callable[[Step], None]:
    def reached(here: Step) -> None:
        if here is step:
            raise CrashError(step)

    return reached


def test_what_is_staged_becomes_visible_in_one_commit_for_each_table(world: World) -> None:
    for number in range(1, 4):
        world.stage([number])
    committer = world.committer()
    assert committer.commit_waiting() == 1
    assert committer.commit_waiting() == 0
    assert world.recorded() == {key_of(number): 1 for number in range(1, 4)}
    world.assert_consistent()


def test_a_reissued_file_replaces_its_rows_and_moves_those_beside_it(world: World) -> None:
    committer = world.committer()
    world.stage([1, 2, 3])
    committer.commit_waiting()
    world.stage([2])
    committer.commit_waiting()
    assert world.recorded() == {key_of(1): 1, key_of(2): 2, key_of(3): 1}
    world.assert_consistent()
    world.stage([1, 2, 3])
    committer.commit_waiting()
    assert set(world.recorded().values()) == {2, 3}
    world.assert_consistent()


@pytest.mark.parametrize("step", Step)
def test_the_next_leader_repairs_what_a_crash_left(world: World, step: Step) -> None:
    world.stage([1, 2])
    world.committer().commit_waiting()
    world.stage([2, 3])
    world.stage([4])
    with pytest.raises(CrashError):
        world.committer(crash_at(step)).commit_waiting()
    world.committer().commit_waiting()
    assert world.recorded() == {key_of(1): 1, key_of(2): 2, key_of(3): 1, key_of(4): 1}
    world.assert_consistent()


@pytest.mark.parametrize("step", [Step.FENCED, Step.INTENDED, Step.COMMITTED])
def test_a_leader_that_was_stopped_and_goes_on_changes_nothing_any_more(world: World, step: Step) -> None:
    world.stage([1, 2])
    world.committer().commit_waiting()
    world.stage([2, 3])

    def overtaken(here: Step) -> None:
        if here is step:
            world.committer().commit_waiting()
            world.stage([3])

    with pytest.raises((LeadershipLostError, CommitConflictError)):
        world.committer(overtaken).commit_waiting()
    assert world.recorded() == {key_of(1): 1, key_of(2): 2, key_of(3): 1}
    world.committer().commit_waiting()
    assert world.recorded()[key_of(3)] == 2
    world.assert_consistent()


def test_of_two_groups_with_the_same_file_the_second_is_refused(world: World) -> None:
    world.stage([1, 2])
    late = world.stage([2, 3])
    world.committer().commit_waiting()
    assert world.recorded() == {key_of(1): 1, key_of(2): 1}
    assert refused(world) == {late: "another group has brought in one of its files meanwhile"}
    world.stage([2, 3])
    world.committer().commit_waiting()
    assert world.recorded() == {key_of(1): 1, key_of(2): 2, key_of(3): 1}
    world.assert_consistent()


def test_a_rewrite_of_a_data_file_that_was_replaced_meanwhile_is_refused(world: World) -> None:
    committer = world.committer()
    world.stage([1, 2, 3])
    committer.commit_waiting()
    world.stage([1])
    late = world.stage([2])
    while committer.commit_waiting():
        pass
    assert refused(world) == {late: "a data file that it replaces was replaced meanwhile"}
    assert world.recorded() == {key_of(1): 2, key_of(2): 1, key_of(3): 1}
    world.assert_consistent()


def test_a_commit_whose_answer_was_lost_is_not_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = TableLog.commit

    def unanswered(log: TableLog, sequence: int, *files: object, **options: object) -> None:
        commit(log, sequence, *files, **options)  # type: ignore[arg-type]
        raise StorageError("the connection was lost before the answer came")

    committer = world.committer()
    world.stage([1])
    committer.commit_waiting()
    monkeypatch.setattr(TableLog, "commit", unanswered)
    world.stage([1, 2])
    assert committer.commit_waiting() == 1
    world.assert_consistent()


def test_a_store_that_fails_is_tried_again_and_nothing_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = TableLog.commit

    def failing(
        log: TableLog, sequence: int, added: Sequence[DataFile], *others: object, **options: object
    ) -> None:
        if added:
            raise StorageError("the store is away")
        commit(log, sequence, added, *others, **options)  # type: ignore[arg-type]

    world.stage([1])
    committer = world.committer()
    with monkeypatch.context() as away:
        away.setattr(TableLog, "commit", failing)
        with pytest.raises(StorageError):
            committer.commit_waiting()
    assert world.visible() == {}
    assert committer.commit_waiting() == 0, "what was intended is completed by the repair"
    assert world.recorded() == {key_of(1): 1}
    world.assert_consistent()


def test_another_lake_is_not_written_to(world: World, tmp_path: Path) -> None:
    world.stage([1])
    world.committer().commit_waiting()
    emptied = world.another(tmp_path / "other")
    emptied.stage([2])
    with pytest.raises(LogDivergedError, match="lake rebuild"):
        emptied.committer().commit_waiting()
    assert emptied.visible() == {}


def test_a_log_that_somebody_else_continues_under_our_name_is_not_written_to(world: World) -> None:
    world.stage([1])
    leader = world.committer()
    leader.commit_waiting()
    stranger = TableLog(world.lake, shape_of(world.table))
    stranger.commit(stranger.read() + 7, [], [])
    world.stage([2])
    for _ in range(2):  # also when it has looked again
        with pytest.raises(LogDivergedError, match="lake rebuild"):
            leader.commit_waiting()
    assert set(world.visible()) == {key_of(1)}


def test_one_leads_and_the_next_takes_over_when_it_ends(world: World) -> None:
    first, second = threading.Event(), threading.Event()
    threads = [threading.Thread(target=world.idle_committer().run, args=(stop,)) for stop in (first, second)]
    for thread in threads:
        thread.start()
    try:
        world.stage([1])
        eventually(lambda: world.recorded() == {key_of(1): 1})
        first.set()
        world.stage([2])
        eventually(lambda: world.recorded() == {key_of(1): 1, key_of(2): 1}, within_s=10)
    finally:
        first.set()
        second.set()
        for thread in threads:
            thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    world.assert_consistent()


def test_a_leader_that_loses_its_session_leads_again(world: World) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=world.idle_committer().run, args=(stop,))
    thread.start()
    try:
        world.stage([1])
        eventually(lambda: key_of(1) in world.recorded())
        with world.postgres.transaction() as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and pid <> pg_backend_pid()"
            )
        world.stage([2])
        eventually(lambda: key_of(2) in world.recorded(), within_s=20)
    finally:
        stop.set()
        thread.join(20)
    world.assert_consistent()


def refused(world: World) -> dict[object, str]:
    with world.postgres.transaction() as connection:
        rows = connection.execute("select id, reason from staged_unit where state = 'refused'").fetchall()
    return {row["id"]: row["reason"] for row in rows}
