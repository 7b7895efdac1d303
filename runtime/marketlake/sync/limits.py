"""How long to wait: between attempts, and between requests to one host."""

import random
import threading
import time
from collections.abc import Callable

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


def pause_before_retry(failed_attempts: int, *, asked_s: float | None = None) -> float:
    """Seconds to wait after that many failed attempts: doubling, with jitter, or what the venue asked for.

    Half of the pause is random, so that workers that failed together do not come back together.
    """
    pause = min(FIRST_PAUSE_S * 2.0 ** (failed_attempts - 1), LONGEST_PAUSE_S)
    return max(pause * random.uniform(0.5, 1.0), asked_s or 0.0)  # noqa: S311 - jitter, no secret


class HostLimiter:
    """Keeps a process below a rate of requests per host, and away from a host that asked for a pause.

    Args:
        per_second: requests per second and host.
        clock: seconds that only grow.
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}

    def reserve(self, host: str) -> float:
        """Take the next free moment at this host; returns the seconds until then."""
        with self._lock:
            now = self._clock()
            moment = max(now, self._next.get(host, 0.0))
            self._next[host] = moment + self._interval
            return moment - now

    def hold_off(self, host: str, seconds: float) -> None:
        """Reserve nothing at this host for that long."""
        with self._lock:
            self._next[host] = max(self._next.get(host, 0.0), self._clock() + seconds)
