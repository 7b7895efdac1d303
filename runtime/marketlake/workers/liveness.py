"""A sign of life for whoever starts the process again when it hangs: a file whose time of change is recent."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)

FILE_VARIABLE = "MARKETLAKE_HEARTBEAT_FILE"
"""Names the file; where it is not set, nobody looks."""
BEAT_EVERY_S = 2.0
"""Seconds between two touches, at least; the main loop comes by more often."""


class Liveness:
    """Touches a file. Belongs into a main loop: a thread beside it would beat on while the loop hangs."""

    def __init__(self, file: Path | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._beaten_at = float("-inf")

    @classmethod
    def of_process(cls) -> Self:
        """The liveness that this process was told to have."""
        named = os.environ.get(FILE_VARIABLE)
        return cls(Path(named) if named else None)

    def beat(self) -> None:
        """Say that the loop goes round; a file that cannot be written is told once and stops nothing."""
        now = self._clock()
        if self._file is None or now - self._beaten_at < BEAT_EVERY_S:
            return
        self._beaten_at = now
        try:
            self._file.touch()
        except OSError as error:
            log.warning("no sign of life in %s (%s): this process may be started again", self._file, error)
            self._file = None
