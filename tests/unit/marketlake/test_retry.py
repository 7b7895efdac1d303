import threading
from collections.abc import Callable

import pytest
from marketlake.errors import MarketlakeError
from marketlake.retry import Backoff, FailedAttempt, RetryStoppedError, retry


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

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def test_what_passes_is_tried_again_after_waits_that_double_and_are_half_random() -> None:
    waits = Waits()
    backoff = Backoff(first_wait_s=1.0, longest_wait_s=3.0)
    assert retry(failing(*[PassingError()] * 4), backoff=backoff, wait=waits) == "done"
    lows = (0.5, 1.0, 1.5, 1.5)
    assert all(low <= wait <= 2 * low for low, wait in zip(lows, waits.seconds, strict=True))
    assert len(waits.seconds) == 4
    assert len({backoff.wait_s(1) for _ in range(50)}) > 10


@pytest.mark.parametrize("error", [LastingError("no"), ValueError("defect")])
def test_what_does_not_pass_is_raised_at_once(error: Exception) -> None:
    waits = Waits()
    with pytest.raises(type(error)):
        retry(failing(error), backoff=Backoff(), wait=waits)
    assert waits.seconds == []


def test_the_last_attempt_is_followed_by_no_wait_and_its_error_passes_through() -> None:
    waits = Waits()
    with pytest.raises(PassingError, match="third"):
        retry(
            failing(PassingError(), PassingError(), PassingError("third")),
            backoff=Backoff(attempts=3),
            wait=waits,
        )
    assert len(waits.seconds) == 2


def test_after_the_time_limit_a_failure_is_the_last() -> None:
    with pytest.raises(PassingError):
        retry(failing(*[PassingError()] * 100), backoff=Backoff(timeout_s=0.05, first_wait_s=0.02))


def test_what_the_other_side_asks_for_is_waited_up_to_a_limit() -> None:
    waits = Waits()
    backoff = Backoff(first_wait_s=0.01, longest_asked_s=60)
    assert retry(failing(PassingError(retry_after=17.0)), backoff=backoff, wait=waits) == "done"
    assert waits.seconds == [17.0]
    with pytest.raises(PassingError):
        retry(failing(PassingError(retry_after=3600)), backoff=backoff, wait=waits)
    assert waits.seconds == [17.0]


def test_each_failure_that_is_followed_by_another_attempt_is_told_before_the_wait() -> None:
    told: list[FailedAttempt] = []
    retry(failing(PassingError("a"), PassingError("b")), backoff=Backoff(), wait=Waits(), tell=told.append)
    assert [(str(one.error), one.number) for one in told] == [("a", 1), ("b", 2)]


def test_a_wait_that_is_ended_ends_the_attempts() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(RetryStoppedError, match="away") as caught:
        retry(failing(PassingError(), PassingError()), backoff=Backoff(first_wait_s=60), wait=stop.wait)
    assert isinstance(caught.value.__cause__, PassingError)


def test_kinds_of_errors_may_be_named() -> None:
    assert retry(
        failing(KeyError(), ValueError()), on=(KeyError, ValueError), backoff=Backoff(), wait=Waits()
    )
    with pytest.raises(KeyError):
        retry(failing(KeyError()), on=ValueError, backoff=Backoff(), wait=Waits())
