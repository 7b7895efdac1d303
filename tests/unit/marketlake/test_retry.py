import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from marketlake.errors import MarketlakeError
from marketlake.retry import Backoff, FailedAttempt, RetryStoppedError, retry, retry_async


class PassingError(MarketlakeError):
    transient = True

    def __init__(self, message: str = "away", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LastingError(MarketlakeError):
    pass


def failing(*errors: Exception) -> Callable[[], str]:
    """An action that raises these, one after the other, and then succeeds."""
    left = list(errors)

    def action() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return action


class Waits:
    """Records the waits that are asked for, and takes no time."""

    def __init__(self, *, ended: bool = False) -> None:
        self.seconds: list[float] = []
        self._ended = ended

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return self._ended


class Retrying(Protocol):
    """Calls until it succeeds."""

    def __call__(
        self, action: Callable[[], str], *, wait: Callable[[float], object], **options: Any
    ) -> str: ...


def in_a_coroutine(action: Callable[[], str], *, wait: Callable[[float], object], **options: Any) -> str:
    """:func:`retry_async`, called like :func:`retry`."""

    async def acting() -> str:
        await asyncio.sleep(0)
        return action()

    async def waiting(seconds: float) -> bool:
        await asyncio.sleep(0)
        return bool(wait(seconds))

    return asyncio.run(retry_async(acting, wait=waiting, **options))


@pytest.fixture(params=[retry, in_a_coroutine], ids=["a function", "a coroutine"])
def trying(request: pytest.FixtureRequest) -> Retrying:
    retrying: Retrying = request.param
    return retrying


def test_what_passes_is_tried_again_after_waits_that_double_and_are_half_random(trying: Retrying) -> None:
    waits = Waits()
    backoff = Backoff(first_wait_s=1.0, longest_wait_s=3.0)
    assert trying(failing(*[PassingError()] * 4), backoff=backoff, wait=waits) == "done"
    lows = (0.5, 1.0, 1.5, 1.5)
    assert all(low <= wait <= 2 * low for low, wait in zip(lows, waits.seconds, strict=True))
    assert len(waits.seconds) == 4
    assert len({backoff.wait_s(1) for _ in range(50)}) > 10


@pytest.mark.parametrize("error", [LastingError("no"), ValueError("defect")])
def test_what_does_not_pass_is_raised_at_once(trying: Retrying, error: Exception) -> None:
    waits = Waits()
    with pytest.raises(type(error)):
        trying(failing(error), backoff=Backoff(), wait=waits)
    assert waits.seconds == []


def test_the_last_attempt_is_followed_by_no_wait_and_its_error_passes_through(trying: Retrying) -> None:
    waits = Waits()
    with pytest.raises(PassingError, match="third"):
        trying(
            failing(PassingError(), PassingError(), PassingError("third")),
            backoff=Backoff(attempts=3),
            wait=waits,
        )
    assert len(waits.seconds) == 2


def test_after_the_time_limit_a_failure_is_the_last(trying: Retrying) -> None:
    with pytest.raises(PassingError):
        trying(
            failing(*[PassingError()] * 100),
            backoff=Backoff(timeout_s=0.05, first_wait_s=0.02),
            wait=time.sleep,
        )


def test_what_the_other_side_asks_for_is_waited_up_to_a_limit(trying: Retrying) -> None:
    waits = Waits()
    backoff = Backoff(first_wait_s=0.01, longest_asked_s=60)
    assert trying(failing(PassingError(retry_after=17.0)), backoff=backoff, wait=waits) == "done"
    assert waits.seconds == [17.0]
    with pytest.raises(PassingError):
        trying(failing(PassingError(retry_after=3600)), backoff=backoff, wait=waits)
    assert waits.seconds == [17.0]


def test_each_failure_that_is_followed_by_another_attempt_is_told_before_the_wait(trying: Retrying) -> None:
    told: list[FailedAttempt] = []
    trying(failing(PassingError("a"), PassingError("b")), backoff=Backoff(), wait=Waits(), tell=told.append)
    assert [(str(one.error), one.number) for one in told] == [("a", 1), ("b", 2)]


def test_a_wait_that_is_ended_ends_the_attempts(trying: Retrying) -> None:
    waits = Waits(ended=True)
    with pytest.raises(RetryStoppedError, match="away") as caught:
        trying(failing(PassingError(), PassingError()), backoff=Backoff(first_wait_s=60), wait=waits)
    assert isinstance(caught.value.__cause__, PassingError)
    assert len(waits.seconds) == 1


def test_kinds_of_errors_may_be_named(trying: Retrying) -> None:
    assert trying(
        failing(KeyError(), ValueError()), on=(KeyError, ValueError), backoff=Backoff(), wait=Waits()
    )
    with pytest.raises(KeyError):
        trying(failing(KeyError()), on=ValueError, backoff=Backoff(), wait=Waits())
