"""This machine."""

from contextlib import suppress
from pathlib import Path

from marketlake.settings import Settings, SettingsError

from stacks.engine.pending import PendingCreate
from stacks.preflight import leftovers
from stacks.preflight.capacity import Machine, check_needs, needs_of
from stacks.settings.environment import EnvironmentSettings


class HostPremises:
    """Processes, ports and a folder of this machine; see :class:`stacks.preflight.Premises`."""

    def __init__(self, environment: str, settings: EnvironmentSettings) -> None:
        self._settings = settings
        self._folder = settings.folder(environment)
        self._foreign: list[Path] = []
        self._addresses = _addresses(environment)  # the file that says so goes with the stack

    def check(self) -> list[str]:
        """Compare what the machine has with what the services are given."""
        needs = needs_of(self._settings, is_new=not self._folder.exists())
        return check_needs(needs, Machine.this(self._folder), self._folder)

    def supply(self, *, bring: bool) -> None:
        """Nothing: processes run from the installed tools and from this environment's libraries."""

    def reach(self) -> None:
        """Nothing: a machine that runs this answers."""

    def settle(self, pending: list[PendingCreate]) -> None:
        """None: our own providers adopt what they find."""
        del pending

    def clear(self, *, keep_data: bool) -> list[str]:
        """Stop processes, remove the folder."""
        stopped = leftovers.stop_processes(self._folder)
        self._foreign = leftovers.remove_folder(self._folder, keep_data=keep_data)
        return [f"stopped what was still running: {name}" for name in stopped]

    def left(self, *, keep_data: bool) -> list[str]:
        """Processes that run, ports that answer, files of other people's."""
        del keep_data
        problems = [f"process {process.pid} runs" for process in leftovers.processes(self._folder)]
        problems += [f"port {port} of {host} answers" for host, port in leftovers.listening(self._addresses)]
        return problems + [f"{path} is no file of the stack: remove it yourself" for path in self._foreign]

    def fate(self, *, keep_data: bool) -> str:
        """Where the data is, if it is anywhere."""
        kept = keep_data and self._folder.exists()
        data = f"its data is kept in {self._folder}" if kept else f"{self._folder} is gone"
        return f"no process, no port, no state; {data}"


def _addresses(environment: str) -> list[tuple[str, int]]:
    with suppress(SettingsError):
        return leftovers.addresses(Settings.load(environment).services)
    return []
