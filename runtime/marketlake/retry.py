"""The one back-off: what may pass is tried again, after waits that double and are half random.

Each kind of failure has one owner. What an owner gives up on is not tried again further out.

| what fails | who tries again |
|---|---|
| a request to the object store | its client, for 30 s (`infrastructure.storage.stores`) |
| a commit to a table that others write, too | `infrastructure.storage.delta` |
| a commit of the committer | the committer, until it is done (`pipeline.ingest.committer`) |
| a request for a venue's listing | `archive.discovery.listing` |
| a file, for whatever passes: the venue, its bytes, landing | the collector, `collection.attempts` times |
| the data file of a group, the refinement of some series | the collector, the refiner, `collection.attempts` times |
| a task while the database or the event bus is away | the consumer, until it is back |
| the outbox, and the schema at a worker's start | the relay and the worker, until the server is back |
| a batch while the database is away | the orchestrator, for a while |
| a claim of a batch, and the record of its failure | the runs of a worker, until the database is back |
| what the workflow engine shows | the mirror, until the engine is back |
"""

import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import stamina
from stamina.instrumentation import set_on_retry_hooks

from marketlake.errors import MarketlakeError, is_transient

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Wait = Callable[[float], object]
"""Waits that many seconds; a true result means: give up. ``threading.Event().wait`` and ``time.sleep`` are such."""

set_on_retry_hooks(())  # whoever tries again tells of it, with more than stamina knows


class RetryStoppedError(MarketlakeError):
    """The wait before another attempt was ended; the cause is what the last attempt raised."""

    code = "retry-stopped"
    transient = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often something is tried, and how long the waits between are."""

    attempts: int | None = None
    """Including the first; None: no limit."""
    timeout_s: float | None = None
    """Seconds after which a failure is the last one; None: no limit."""
    first_wait_s: float = 0.5
    """Seconds before the second attempt, at most; doubled for each further one."""
    longest_wait_s: float = 30.0
    longest_asked_s: float = 30.0
    """The longest wait that the other side may ask for; an error that asks for more is the last one."""

    def wait_s(self, failed: int, asked_s: float | None = None) -> float:
        """Return the seconds to wait after that many failed attempts.

        Half of it is random, so that clients that failed together do not come back together. What the other side
        asked for is waited at least.
        """
        wait = min(self.first_wait_s * 2.0 ** min(failed - 1, 60), self.longest_wait_s)
        return max(wait * random.uniform(0.5, 1.0), asked_s or 0.0)  # noqa: S311 - jitter, no secret


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that is followed by another."""

    error: Exception
    number: int
    """1 for the first attempt."""
    wait_s: float
    """Seconds until the next one."""


def log_failure(failed: FailedAttempt) -> None:
    """Log what failed, and when it is tried again."""
    log.warning("%s; trying again in %.1f s", failed.error, failed.wait_s)


def retry(
    action: Callable[[], Result],
    *,
    backoff: Backoff,
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] = is_transient,
    wait: Wait = time.sleep,
    tell: Callable[[FailedAttempt], None] = log_failure,
) -> Result:
    """Call until it succeeds, and return its result.

    Args:
        action: what is tried.
        backoff: how often, and after which waits.
        on: which errors are followed by another attempt.
        wait: waits between two attempts.
        tell: called with each failed attempt that is followed by another, before the wait.

    Raises:
        RetryStoppedError: `wait` said so.
        Exception: what the last attempt raised, if no other one follows.
    """
    judged = _Judge(backoff, on)
    for attempt in stamina.retry_context(judged, attempts=backoff.attempts, timeout=backoff.timeout_s):
        if (failed := judged.failed(attempt.num)) is not None:
            tell(failed)
            if not stamina.is_testing() and wait(failed.wait_s):
                raise RetryStoppedError(f"not tried again: {failed.error}") from failed.error
        with attempt:
            return action()
    raise AssertionError("an attempt returns or raises")


async def retry_async(
    action: Callable[[], Awaitable[Result]],
    *,
    backoff: Backoff,
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] = is_transient,
    wait: Callable[[float], Awaitable[bool]],
    tell: Callable[[FailedAttempt], None] = log_failure,
) -> Result:
    """:func:`retry` for coroutines."""
    judged = _Judge(backoff, on)
    async for attempt in stamina.retry_context(judged, attempts=backoff.attempts, timeout=backoff.timeout_s):
        if (failed := judged.failed(attempt.num)) is not None:
            tell(failed)
            if not stamina.is_testing() and await wait(failed.wait_s):
                raise RetryStoppedError(f"not tried again: {failed.error}") from failed.error
        with attempt:
            return await action()
    raise AssertionError("an attempt returns or raises")


class _Judge:
    """Tells stamina which errors are followed by another attempt, and remembers the last one."""

    def __init__(
        self,
        backoff: Backoff,
        on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool],
    ) -> None:
        self._backoff = backoff
        self._on = on
        self._last: Exception | None = None

    def __call__(self, error: Exception) -> bool | float:
        self._last = error
        on = self._on
        wanted = isinstance(error, on) if isinstance(on, type | tuple) else on(error)
        asked = _asked(error)
        # the wait is ours, so that it can be ended: stamina waits no time at all
        return 0.0 if wanted and (asked is None or asked <= self._backoff.longest_asked_s) else False

    def failed(self, number: int) -> FailedAttempt | None:
        """The attempt that failed before the one of this number."""
        if self._last is None:
            return None
        pause = self._backoff.wait_s(number - 1, _asked(self._last))
        return FailedAttempt(self._last, number - 1, pause)


def _asked(error: Exception) -> float | None:
    seconds: float | None = getattr(error, "retry_after", None)
    return seconds
