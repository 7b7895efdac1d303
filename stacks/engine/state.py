"""What Pulumi's file backend keeps of a stack beside its resources: locks, pending creates, the salt of its secrets.

A command that is killed leaves its lock, and Pulumi then refuses every further one: :func:`heal_locks`. It also leaves
creates that it began and could not record: :func:`pending_creates`. And Pulumi derives the key of a stack's secrets
from a passphrase and a salt. It keeps the salt in the state, and copies it into ``Pulumi.<stack>.yaml`` whenever it
runs. That file is shared and the passphrase is not, so :func:`remove_salt` takes the copy out again, and Pulumi falls
back to the state's own (`PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER`).
"""

import json
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

_OF_KUBERNETES = "kubernetes:"
_SALT = "encryptionsalt:"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingCreate:
    """One resource."""

    urn: str
    inputs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.urn.rpartition("::")[2]

    @property
    def is_of_the_cluster(self) -> bool:
        """It is an object of Kubernetes' own kinds with a name, so one can look whether it is there."""
        kind = self.urn.split("::")[2].rpartition("$")[2]
        named = isinstance(self.inputs.get("metadata"), dict) and isinstance(
            self.inputs["metadata"].get("name"), str
        )
        return kind.startswith(_OF_KUBERNETES) and named and "apiVersion" in self.inputs


def pending_creates(state: Path) -> list[PendingCreate]:
    """Those in a stack's state; none if it cannot be read, which Pulumi will say itself."""
    try:
        latest = json.loads(state.read_text())["checkpoint"]["latest"] or {}
    except (OSError, ValueError, KeyError):
        return []
    return [
        PendingCreate(urn=operation["resource"]["urn"], inputs=operation["resource"].get("inputs") or {})
        for operation in latest.get("pending_operations") or []
        if operation.get("type") == "creating"
    ]


def remove_salt(settings: Path, state: Path) -> bool:
    """Remove the salt's line from a settings file; True if there was one to remove.

    It stays where it could not be had back: if the state does not hold the same, or the file holds secrets
    that it encrypts.

    Args:
        settings: a ``Pulumi.<stack>.yaml``.
        state: the stack's state.
    """
    try:
        text = settings.read_text()
        latest = json.loads(state.read_text())["checkpoint"]["latest"] or {}
    except (OSError, ValueError, KeyError):
        return False
    lines = text.splitlines(keepends=True)
    salts = [line for line in lines if line.startswith(_SALT)]
    kept = (latest.get("secrets_providers") or {}).get("state", {}).get("salt")
    if not salts or any(line.removeprefix(_SALT).strip() != kept for line in salts) or "secure:" in text:
        return False
    settings.write_text("".join(line for line in lines if not line.startswith(_SALT)))
    return True


def clean_environments(settings_folder: Path, state_folder: Path) -> None:
    """Clean the settings of every environment that has a stack.

    Args:
        settings_folder: with ``Pulumi.<stack>.yaml`` files.
        state_folder: with a ``<stack>.json`` file for each stack.
    """
    for settings in settings_folder.glob("Pulumi.*.yaml"):
        stack = settings.name.removeprefix("Pulumi.").removesuffix(".yaml")
        remove_salt(settings, state_folder / f"{stack}.json")


if __name__ == "__main__":
    clean_environments(*map(Path, sys.argv[1:3]))
