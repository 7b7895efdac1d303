"""The throw-away stack of the host target: supervised processes, a folder, the loopback interface."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil

from components.supervision.layout import SERVICE_MARK
from stacks.preflight import leftovers
from tests.conformance.platform import Platform


class LiveStack(Platform):
    """A stack on this machine."""

    target = "host"

    @classmethod
    def somewhere(cls) -> Self:
        """One in a folder of its own: short, since a UNIX socket lies below it, and open to traversal, since
        PostgreSQL drops root's rights.
        """
        home = Path(tempfile.mkdtemp(prefix="mlk-"))
        home.chmod(0o711)
        return cls(home)

    def processes(self) -> list[psutil.Process]:
        """Every process of the stack, by the mark that each carries."""
        return leftovers.processes(self.folder)

    def of_service(self, name: str) -> list[psutil.Process]:
        return [process for process in self.processes() if process.environ().get(SERVICE_MARK) == name]

    def kill(self, service: str) -> None:
        killed = self.of_service(service)
        assert killed, f"no process carries the mark of {service}"
        for process in killed:
            process.kill()
        psutil.wait_procs(killed, timeout=10)

    def logs(self) -> Iterator[tuple[str, bytes]]:
        yield from self._files("logs")

    def kept_elsewhere(self) -> Iterator[tuple[str, bytes]]:
        yield from self._files("supervisor")

    def remains(self) -> set[str]:
        found = {str(process) for process in self.processes()}
        if self.folder.exists():
            found |= {path.name for path in self.folder.iterdir() if path.name != "data"}
        return found

    def has_data(self) -> bool:
        return (self.folder / "data").is_dir()

    def discard(self) -> None:
        if self.folder.exists() or self.processes():
            self.make("down", check=False)
        for process in self.processes():
            process.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def _files(self, folder: str) -> Iterator[tuple[str, bytes]]:
        for path in (self.folder / folder).rglob("*"):
            if path.is_file() and path.parent.name != "programs":
                yield str(path), path.read_bytes()
