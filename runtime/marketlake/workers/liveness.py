"""Liveness of a process: a file that its main loop touches, for a probe that restarts it when it hangs."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)

FILE_VARIABLE = "MARKETLAKE_HEARTBEAT_FILE"
"""Names the file; where it is not set, there is no probe."""
BEAT_EVERY_S = 2.0
"""Seconds between two touches, at least; the main loop comes by more often."""


class Liveness:
    """Touches a file. Call it in the main loop: a thread beside it would go on while the loop hangs."""

    def __init__(self, file: Path | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._beaten_at = float("-inf")

    @classmethod
    def of_process(cls) -> Self:
        """Return the liveness that the environment of this process configures."""
        named = os.environ.get(FILE_VARIABLE)
        return cls(Path(named) if named else None)

    def beat(self) -> None:
        """Touch the file; one that cannot be written is logged once and stops nothing."""
        now = self._clock()
        if self._file is None or now - self._beaten_at < BEAT_EVERY_S:
            return
        self._beaten_at = now
        try:
            self._file.touch()
        except OSError as error:
            log.warning("no sign of life in %s (%s): this process may be started again", self._file, error)
            self._file = None
