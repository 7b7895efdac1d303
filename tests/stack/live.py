"""The throw-away stack of the host target: supervised processes, a folder, the loopback interface."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from components.supervision.layout import SERVICE_MARK
from stacks.preflight import leftovers
from tests.conformance.holdings import SERVICES
from tests.conformance.platform import Platform
from tests.waiting import eventually


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
        return [process for process in self.processes() if _service_of(process) == name]

    def kill(self, service: str) -> None:
        eventually(lambda: self.of_service(service), telling=lambda: f"no process is of {service}")
        killed = self.of_service(service)
        for process in killed:
            with suppress(psutil.NoSuchProcess):
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

    def tamper(self) -> Mapping[str, Callable[[], bool]]:
        """Kill the supervisor, too: its services become orphans."""
        tampered = super().tamper()
        next(each for each in self.processes() if "supervisord" in " ".join(each.cmdline())).kill()
        return {**tampered, "supervisor": self.runs_once}

    def runs_once(self) -> bool:
        """Whether each service runs, and no orphan of it beside the new one; the workers are several."""
        for name in SERVICES - {"collection-worker"}:
            own = self.of_service(name)
            pids = {process.pid for process in own}
            if len([process for process in own if process.ppid() not in pids]) != 1:
                return False
        return True

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


def _service_of(process: psutil.Process) -> str | None:
    """The service that a process belongs to, by its mark; None if it has just ended."""
    try:
        return process.environ().get(SERVICE_MARK)
    except psutil.Error:
        return None
