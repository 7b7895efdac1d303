"""The locks of Pulumi's file backend: a file for each command that changes a stack, removed when it ends.

A command that was killed leaves its lock, and Pulumi then refuses every further one.
"""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil

_CLOCK_STEP = timedelta(seconds=5)
"""A process counts as the lock's own if it began at most so much later than the lock says: clocks get
corrected."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock of a stack."""

    path: Path
    pid: int
    host: str
    user: str
    since: datetime

    @property
    def is_stale(self) -> bool:
        """Its process ran on this machine and is gone. What runs elsewhere cannot be judged from here."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:  # killed, and its parent has not noticed
                return True
            began = datetime.fromtimestamp(process.create_time(), tz=self.since.tzinfo)
        except psutil.NoSuchProcess:
            return True
        return began > self.since + _CLOCK_STEP  # the number went to another process since


def heal_locks(folder: Path) -> list[Lock]:
    """Remove the locks of commands that are gone, and tell which."""
    stale = [lock for lock in locks(folder) if lock.is_stale]
    for lock in stale:
        lock.path.unlink(missing_ok=True)
        lock.path.with_name(f"{lock.path.name}.attrs").unlink(missing_ok=True)
    return stale


def locks(folder: Path) -> Iterator[Lock]:
    """The locks in a stack's lock folder; one that cannot be read is Pulumi's to complain of."""
    for path in sorted(folder.glob("*.json")):
        try:
            entry = json.loads(path.read_text())
            since = datetime.fromisoformat(entry["timestamp"])
            yield Lock(path, int(entry["pid"]), str(entry["hostname"]), str(entry["username"]), since)
        except (OSError, ValueError, KeyError, TypeError):
            continue
