"""What is done from time to time in whichever worker comes first."""

import logging
import threading
from collections.abc import Callable
from functools import partial

from marketlake.infrastructure.postgres.locks import LockHeldError
from marketlake.retry import Backoff, RetryStoppedError, retry

log = logging.getLogger(__name__)

_BACKOFF = Backoff(first_wait_s=1.0, longest_wait_s=60.0)


class Routine:
    """Repeats an act; any number of processes may run one.

    Args:
        name: of what is done, for the log.
        act: does it, waiting as it is told for whoever else is at it, and returns what there is to tell.
        first_after_s: seconds before the first time.
        every_s: seconds between two times.
    """

    def __init__(
        self,
        name: str,
        act: Callable[[Callable[[float], bool]], object],
        *,
        first_after_s: float,
        every_s: float,
    ) -> None:
        self._name = name
        self._act = act
        self._first_after_s = first_after_s
        self._every_s = every_s

    def run(self, stop: threading.Event) -> None:
        """Repeat until `stop` is set; what may pass is waited out, and another failure costs one time."""
        wait_s = self._first_after_s
        while not stop.wait(wait_s):
            wait_s = self._every_s
            try:
                done = retry(partial(self._act, stop.wait), backoff=_BACKOFF, wait=stop.wait)
            except (RetryStoppedError, LockHeldError):
                return
            except Exception:
                log.exception("%s: not done this time", self._name)
            else:
                log.info("%s: %s", self._name, done)
