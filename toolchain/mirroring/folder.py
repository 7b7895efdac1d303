"""A mirror that is being written: what it holds is whole and listed with its digest, whenever the run is killed."""

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from toolchain.checksums import file_digest
from toolchain.errors import ToolchainError
from toolchain.sources.mirror import SUMS

_LOCK, _STAGING = ".lock", ".staging"


class MirrorFolder:
    """The files of a mirror, named by their paths below it. Its methods may be called from several threads."""

    def __init__(self, path: Path) -> None:
        """Read the list of a folder that exists; :meth:`opened` is for everybody else."""
        self.path = path
        self.staging = path / _STAGING
        self._lock = threading.Lock()
        self._listed = dict(_lines((path / SUMS).read_text()))
        self._proven: dict[str, bool] = {}
        self.written: set[str] = set()
        """What this run wrote, because it was missing or different."""

    @classmethod
    @contextmanager
    def opened(cls, path: Path, wait: Callable[[], None]) -> Iterator[Self]:
        """Open a mirror for one run alone; the folder is made where it is missing.

        Args:
            path: of the folder.
            wait: called if another run writes this mirror, before that one's end is waited for.

        Raises:
            ToolchainError: it is no folder, or one that holds something else.
        """
        if path.exists() and not path.is_dir():
            raise ToolchainError(f"{path} is no folder: name a new or an empty one, or a mirror")
        path.mkdir(parents=True, exist_ok=True)
        strangers = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
        if strangers and SUMS not in strangers:
            raise ToolchainError(
                f"{path} holds {strangers[0]} and no {SUMS}, so it is no mirror: name a new or an empty folder"
            )
        with (path / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not (path / SUMS).exists():
                (path / SUMS).touch()
            shutil.rmtree(path / _STAGING, ignore_errors=True)
            (path / _STAGING).mkdir()
            try:
                yield cls(path)
            finally:
                shutil.rmtree(path / _STAGING, ignore_errors=True)

    def has(self, name: str) -> bool:
        """Return whether a file is there with the digest that the list gives."""
        if name not in self._proven:
            try:
                self._proven[name] = file_digest(self.path / name).value == self._listed.get(name)
            except FileNotFoundError:
                self._proven[name] = False
        return self._proven[name]

    def add(self, files: Mapping[str, Path]) -> None:
        """Move staged files to their places and list them, but those that are there.

        Args:
            files: name in the mirror → the staged file.
        """
        new = []
        for name, staged in files.items():
            if self.has(name) and file_digest(staged).value == self._listed[name]:
                staged.unlink()
                continue
            _flush(staged)
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            staged.replace(self.path / name)
            new.append(name)
        self.record(new)

    def record(self, names: Iterable[str]) -> None:
        """List files as they are now, and no longer those that are gone."""
        digests = {name: file_digest(self.path / name).value for name in names}
        with self._lock:
            self.written |= {name for name, digest in digests.items() if self._listed.get(name) != digest}
            listed = {**self._listed, **digests}
            self._listed = {name: digest for name, digest in listed.items() if (self.path / name).is_file()}
            self._proven |= dict.fromkeys(digests, True)
            text = "".join(f"{self._listed[name]}  {name}\n" for name in sorted(self._listed))
            if text != (self.path / SUMS).read_text():
                self._replace_sums(text)

    @property
    def names(self) -> list[str]:
        """All files that are listed."""
        return list(self._listed)

    def size(self, names: Iterable[str]) -> int:
        """Return how many bytes files take."""
        return sum((self.path / name).stat().st_size for name in names)

    def _replace_sums(self, text: str) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.staging, delete=False) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(0o644)
        Path(file.name).replace(self.path / SUMS)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        yield name, digest


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
