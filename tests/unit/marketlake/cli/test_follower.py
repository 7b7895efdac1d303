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
    unrefined=0,
    open_tasks=0,
    running_tasks=0,
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
    """A database that tells a prepared story; the last chapter lasts."""

    def __init__(self, *story: Progress | Exception | None) -> None:
        self.story = list(story)
        self.cancelled = False

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

    def cancel(self, *_: object) -> bool:
        self.cancelled = True
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(following.time, "monotonic", clock.monotonic)
    return clock


def follower(world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, quiet: bool = True) -> Follower:
    monkeypatch.setattr(batches, "progress", world.progress)
    monkeypatch.setattr(batches, "cancel", world.cancel)
    anything: Any = world
    return Follower(anything, BATCH, quiet=quiet, timeout_s=10, sleep=clock.sleep)


def test_a_batch_is_followed_to_its_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requested = replace(BEGUN, state=BatchState.REQUESTED, attended=False)
    collecting = replace(BEGUN, state=BatchState.COLLECTING, found=2, queued=1, running=1, failed=1)
    world = World(requested, requested, BEGUN, BEGUN, replace(BEGUN, found=1), collecting, DONE)
    result = follower(world, clock, monkeypatch, quiet=False).follow()
    assert (result.exit_code, result.progress) == (ExitCode.COMPLETE, DONE)
    assert capsys.readouterr().err.splitlines() == [
        "waiting for a collection worker",
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
        (replace(DONE, unrefined=1), ExitCode.INCOMPLETE),
        (replace(DONE, state=BatchState.CANCELLED), ExitCode.INCOMPLETE),
        (replace(DONE, state=BatchState.FAILED, error_code="listing-broken"), ExitCode.INCOMPLETE),
        (replace(DONE, state=BatchState.FAILED, error_code="platform-unreachable"), ExitCode.UNREACHABLE),
    ],
)
def test_the_end_decides_the_exit_code(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, end: Progress, code: ExitCode
) -> None:
    assert follower(World(end), clock, monkeypatch).follow().exit_code is code


def test_a_batch_that_no_worker_carries_on_is_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(replace(BEGUN, attended=False))
    with pytest.raises(
        PlatformUnreachableError, match=r"no collection worker .* for 10 s.* The collection is kept"
    ):
        follower(world, clock, monkeypatch).follow()
    assert not world.cancelled
    assert 10 < clock.now < 11


def test_a_batch_that_another_worker_takes_over_goes_on(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = replace(BEGUN, state=BatchState.COLLECTING, found=2, queued=2, attended=False)
    world = World(*[silent] * 40, replace(silent, attended=True), *[silent] * 40, DONE)
    assert follower(world, clock, monkeypatch).follow().exit_code is ExitCode.COMPLETE


def test_a_short_outage_of_the_database_is_waited_out(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(BEGUN, *[DatabaseUnavailableError("away.")] * 5, DONE)
    result = follower(world, clock, monkeypatch, quiet=False).follow()
    assert result.exit_code is ExitCode.COMPLETE
    assert "the database does not answer, waiting" in capsys.readouterr().err


def test_a_long_outage_of_the_database_is_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(BEGUN, DatabaseUnavailableError("the database is away."))
    with pytest.raises(
        PlatformUnreachableError, match=r"the database is away\. The collection goes on by itself"
    ):
        follower(world, clock, monkeypatch).follow()


def test_a_batch_that_is_gone_is_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlatformUnreachableError, match="does not know the batch"):
        follower(World(None), clock, monkeypatch).follow()


def interrupted(_: float) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_cancels_the_batch(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(BEGUN)
    monkeypatch.setattr(clock, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        follower(world, clock, monkeypatch).follow()
    assert world.cancelled
    assert "the others are dropped" in capsys.readouterr().err


def test_a_cancellation_that_cannot_be_written_down_is_told(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(BEGUN, DatabaseUnavailableError("the database is away."))
    monkeypatch.setattr(clock, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        follower(world, clock, monkeypatch).follow()
    assert "not cancelled: the database is away." in capsys.readouterr().err
