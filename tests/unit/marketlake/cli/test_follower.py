from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import BatchState, Progress
from marketlake.cli import follower as following
from marketlake.cli.exit_codes import ExitCode, PlatformUnreachableError
from marketlake.cli.follower import Follower
from marketlake.infrastructure.postgres import DatabaseUnavailableError
from marketlake.workflows.engine import FlowRun

BATCH = UUID(int=3)
BEGUN = Progress(
    state=BatchState.PLANNING,
    found=0,
    skipped=0,
    queued=0,
    running=0,
    copied=0,
    verified=0,
    failed=0,
    cancelled=0,
    rows=0,
    quarantined=0,
    size=0,
    refined_rows=0,
    error_code=None,
    error=None,
    finished_at=None,
    attended=True,
)
DONE = replace(BEGUN, state=BatchState.DONE, found=2, copied=2, verified=2, rows=20)


class Clock:
    """Time passes only when somebody sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class World:
    """A database and a workflow engine that tell a prepared story; the last chapter lasts."""

    def __init__(self, story: list[Progress | Exception | None], runs: list[str | None]) -> None:
        self.story = story
        self.runs = runs
        self.workers: list[bool] = []
        self.cancelled_run = False
        self.marked_crashed = False
        self.cancelled_batch = False
        self.failed_batch: str | None = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        chapter = self.story[0]
        if isinstance(chapter, Exception):
            self.story = self.story[1:] or self.story
            raise chapter
        yield None

    def progress(self, *_: object) -> Progress | None:
        chapter = self.story[0]
        self.story = self.story[1:] or self.story
        assert not isinstance(chapter, Exception)
        return chapter

    def look(self, _: str) -> FlowRun | None:
        state = self.runs[0]
        self.runs = self.runs[1:] or self.runs
        return None if state is None else FlowRun(id="r", state_type=state, message="why")

    def has_worker(self) -> bool:
        return self.workers.pop(0)

    def cancel(self, _: str) -> bool:
        self.cancelled_run = True
        return True

    def mark_crashed(self, _: str) -> bool:
        self.marked_crashed = True
        return True

    def cancel_batch(self, *_: object) -> bool:
        self.cancelled_batch = True
        return True

    def fail_batch(self, _: object, __: UUID, code: str, ___: str) -> None:
        self.failed_batch = code


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(following.time, "monotonic", clock.monotonic)
    return clock


def follower(world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, quiet: bool = True) -> Follower:
    monkeypatch.setattr(batches, "progress", world.progress)
    monkeypatch.setattr(batches, "cancel", world.cancel_batch)
    monkeypatch.setattr(batches, "fail", world.fail_batch)
    anything: Any = world
    return Follower(anything, anything, BATCH, "r", quiet=quiet, timeout_s=10, sleep=clock.sleep)


def test_a_batch_is_followed_to_its_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collecting = replace(BEGUN, state=BatchState.COLLECTING, found=2, queued=1, running=1, failed=1)
    planning = replace(BEGUN, found=1)
    world = World(
        [BEGUN] * 8 + [BEGUN] * 8 + [planning, collecting, DONE], ["SCHEDULED", "PENDING", "RUNNING"]
    )
    result = follower(world, clock, monkeypatch, quiet=False).follow()
    assert (result.exit_code, result.progress) == (ExitCode.COMPLETE, DONE)
    assert capsys.readouterr().err.splitlines() == [
        "waiting for a workflow worker",
        "discovering",
        "discovering and collecting",
        "collecting",
        "done",
    ]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (DONE, ExitCode.COMPLETE),
        (replace(DONE, failed=1), ExitCode.INCOMPLETE),
        (replace(DONE, state=BatchState.CANCELLED), ExitCode.INCOMPLETE),
        (replace(DONE, state=BatchState.FAILED, error_code="listing-broken"), ExitCode.INCOMPLETE),
        (replace(DONE, state=BatchState.FAILED, error_code="no-workers"), ExitCode.UNREACHABLE),
        (replace(DONE, state=BatchState.FAILED, error_code="platform-unreachable"), ExitCode.UNREACHABLE),
    ],
)
def test_the_end_decides_the_exit_code(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, end: Progress, code: ExitCode
) -> None:
    assert follower(World([end], ["RUNNING"]), clock, monkeypatch).follow().exit_code is code


def test_a_run_that_died_is_told_and_written_down(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([replace(BEGUN, found=2, queued=2)], ["RUNNING", "CRASHED"])
    result = follower(world, clock, monkeypatch).follow()
    assert result.exit_code is ExitCode.INCOMPLETE
    assert result.progress.error == (
        "the run ended as crashed before the collection did (why). Run the same command again: "
        "what is in is not copied again."
    )
    assert world.failed_batch == "run-died"


def test_a_run_that_nobody_begins_is_cancelled(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([BEGUN], ["SCHEDULED"])
    world.workers = [True, False]  # first it only waits for its turn
    with pytest.raises(PlatformUnreachableError, match="no workflow worker began the run within 10 s"):
        follower(world, clock, monkeypatch).follow()
    assert world.cancelled_run
    assert world.cancelled_batch
    assert clock.now > 20


def test_a_short_outage_of_the_database_is_waited_out(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World([BEGUN, *[DatabaseUnavailableError("away.")] * 5, DONE], ["RUNNING"])
    result = follower(world, clock, monkeypatch, quiet=False).follow()
    assert result.exit_code is ExitCode.COMPLETE
    assert "the database does not answer, waiting" in capsys.readouterr().err


def test_a_long_outage_of_the_database_is_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([BEGUN, DatabaseUnavailableError("the database is away.")], ["RUNNING"])
    with pytest.raises(
        PlatformUnreachableError, match=r"the database is away\. The collection goes on by itself"
    ):
        follower(world, clock, monkeypatch).follow()


def test_a_batch_that_is_gone_is_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlatformUnreachableError, match="does not know the batch"):
        follower(World([None], ["RUNNING"]), clock, monkeypatch).follow()


@pytest.mark.parametrize(("state", "cancelled"), [("SCHEDULED", True), ("RUNNING", False), (None, False)])
def test_ctrl_c_cancels_the_batch_and_a_run_that_has_not_begun(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: str | None,
    cancelled: bool,
) -> None:
    world = World([BEGUN], [state])

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clock, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        follower(world, clock, monkeypatch).follow()
    assert world.cancelled_batch
    assert world.cancelled_run is cancelled
    assert "the others are dropped" in capsys.readouterr().err


def test_a_cancellation_that_cannot_be_written_down_is_told(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World([BEGUN, DatabaseUnavailableError("the database is away.")], ["RUNNING"])

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clock, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        follower(world, clock, monkeypatch).follow()
    assert "not cancelled: the database is away." in capsys.readouterr().err


def test_a_run_that_was_killed_with_its_worker_is_not_waited_for(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned = replace(BEGUN, state=BatchState.COLLECTING, found=2, queued=2, attended=False)
    world = World([BEGUN, abandoned], ["RUNNING"])
    result = follower(world, clock, monkeypatch).follow()
    assert result.exit_code is ExitCode.INCOMPLETE
    assert result.progress.error
    assert "was killed" in result.progress.error
    assert (world.failed_batch, world.marked_crashed) == ("run-died", True)
    assert 30 < clock.now < 60


def test_a_run_that_comes_back_after_an_outage_goes_on(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    away = replace(BEGUN, state=BatchState.COLLECTING, found=2, queued=2, attended=False)
    world = World([away] * 100 + [replace(away, attended=True)] + [away] * 100 + [DONE], ["RUNNING"])
    assert follower(world, clock, monkeypatch).follow().exit_code is ExitCode.COMPLETE
    assert not world.marked_crashed
