"""The wheels of a mirror: all that `make` installs with pip and uv, in one flat folder that both understand."""

import hashlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.cache import Cache
from toolchain.commands import run
from toolchain.errors import CommandFailedError, ToolchainError
from toolchain.images.runtime import BUILT_WITH, WORKSPACE, find_uv
from toolchain.mirroring.folder import MirrorFolder
from toolchain.platforms import Platform
from toolchain.progress import Progress

FOLDER = "wheels"
BOOTSTRAP = WORKSPACE / "toolchain" / "bootstrap.txt"
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
"""The Python that the wheels are for: the one that runs this."""
_AT_ONCE = 6
"""Runs of pip beside each other: each waits for the index most of its time."""
_TOGETHER = 12
"""Wheels that one run of pip brings."""
_ENTRY = re.compile(r"\n(?=[^\s#])")


def write_wheels(mirror: MirrorFolder, cache: Cache, platform: Platform, progress: Progress) -> list[str]:
    """Write the wheels for this Python and platform; return their names.

    Each must have a hash that is locked. The ordinary client brings them, so the user's index, proxy and
    credentials hold. A list in the mirror says which they are: with it a second run asks no index.

    Args:
        mirror: that they are for.
        cache: holds the pinned uv, which reads the lock.
        platform: that this is.
        progress: called with where it is.

    Raises:
        ToolchainError: the lock cannot be read, or a wheel cannot be had.
    """
    progress.start("wheels", f"for {PYTHON} on {platform}")
    needed = [_locked(cache), BUILT_WITH.read_text(), BOOTSTRAP.read_text()]
    record = f"{FOLDER}/{PYTHON}-{platform}.txt"
    heading = f"# sha256 of what is locked: {hashlib.sha256(''.join(needed).encode()).hexdigest()}"
    names = _read(mirror, record, heading)
    if names is None:
        names = _Downloads(mirror, progress).bring([batch for text in needed for batch in _batches(text)])
        staged = mirror.staging / "record"
        staged.write_text("\n".join([heading, *names, ""]))
        mirror.add({record: staged})
        progress.line(f"✓ {len(names)} wheels, {mirror.size(names) / 1e6:.0f} MB")
    return names


def _locked(cache: Cache) -> str:
    """Return the libraries of all packages of the workspace, with their hashes, as uv.lock gives them."""
    command = "export --frozen --all-packages --no-emit-workspace --no-header --no-annotate --quiet"
    try:
        return run([find_uv(cache), *command.split()], cwd=WORKSPACE)
    except CommandFailedError as error:
        raise ToolchainError(f"uv.lock cannot be read: {error}") from error


def _read(mirror: MirrorFolder, record: str, heading: str) -> list[str] | None:
    """Return the files that the list names, if it is about what is locked now and all of them are there."""
    if not mirror.has(record):
        return None
    first, *names = (mirror.path / record).read_text().splitlines()
    return names if first == heading and all(mirror.has(name) for name in names) else None


def _batches(requirements: str) -> Iterator[str]:
    entries = [entry for entry in _ENTRY.split(requirements) if entry and not entry.startswith("#")]
    for first in range(0, len(entries), _TOGETHER):
        yield "\n".join(entries[first : first + _TOGETHER]) + "\n"


@dataclass
class _Downloads:
    """Runs of pip beside each other, which end together when one fails or the user interrupts."""

    mirror: MirrorFolder
    progress: Progress
    stopped: threading.Event = field(default_factory=threading.Event)
    groups: set[int] = field(default_factory=set)
    """Process groups at work."""

    def bring(self, batches: Sequence[str]) -> list[str]:
        """Bring what batches of requirements pin; return the files' names."""
        self.progress.step(f"downloading about {sum(batch.count('==') for batch in batches)}")
        self._offer_what_is_there()
        found: set[str] = set()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for done in as_completed([pool.submit(self._one, *each) for each in enumerate(batches)]):
                    found.update(done.result())
                    self.progress.detail(f"{len(found)} are there")
            except BaseException:
                self._stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return sorted(found)

    def _offer_what_is_there(self) -> None:
        """Let pip find the wheels of an earlier run, but none that was damaged since: it would stop at that."""
        self._held.mkdir()
        for path in (self.mirror.path / FOLDER).glob("*.whl"):
            if self.mirror.has(f"{FOLDER}/{path.name}"):
                (self._held / path.name).symlink_to(path.resolve())

    @property
    def _held(self) -> Path:
        return self.mirror.staging / "held"

    def _one(self, number: int, requirements: str) -> list[str]:
        into = self.mirror.staging / f"batch-{number}"
        into.mkdir()
        listed = into / "requirements.txt"
        listed.write_text(requirements)
        command: list[str | Path] = [
            *(
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-input",
            ),
            *("--no-deps", "--require-hashes", "--only-binary", ":all:"),
            *("--find-links", self._held, "--dest", into, "--requirement", listed),
        ]
        if self.stopped.is_set():
            return []
        try:
            run(command, on_start=self._started, on_end=self.groups.discard)
        except CommandFailedError as error:
            raise ToolchainError(f"the locked wheels cannot be had: {error}") from error
        files = {f"{FOLDER}/{path.name}": path for path in sorted(into.glob("*.whl"))}
        self.mirror.add(files)
        return list(files)

    def _started(self, group: int) -> None:
        self.groups.add(group)
        if self.stopped.is_set():
            self._stop()

    def _stop(self) -> None:
        self.stopped.set()
        for group in list(self.groups):
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
