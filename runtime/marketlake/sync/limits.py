"""Limit the rate of requests to a venue's host."""

import threading
import time
from collections.abc import Callable


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
        """Reserve the next free moment at this host; return the seconds until then."""
        with self._lock:
            now = self._clock()
            moment = max(now, self._next.get(host, 0.0))
            self._next[host] = moment + self._interval
            return moment - now

    def hold_off(self, host: str, seconds: float) -> None:
        """Reserve nothing at this host for that long."""
        with self._lock:
            self._next[host] = max(self._next.get(host, 0.0), self._clock() + seconds)
