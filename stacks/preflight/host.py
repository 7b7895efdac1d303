"""Preflight of the host target: this machine's capacity, and what a destroyed stack leaves on it."""

from contextlib import suppress
from pathlib import Path

from marketlake.settings import Settings, SettingsError

from stacks.engine.state import PendingCreate
from stacks.preflight import leftovers
from stacks.preflight.capacity import Machine, check_machine, requirements_of
from stacks.settings.environment import EnvironmentSettings


class HostPreflight:
    """Processes, ports and a folder of this machine; see :class:`stacks.preflight.Preflight`."""

    def __init__(self, environment: str, settings: EnvironmentSettings) -> None:
        self._settings = settings
        self._folder = settings.folder(environment)
        self._unknown: list[Path] = []
        self._addresses = _addresses(environment)  # the file that says so goes with the stack

    def check(self) -> list[str]:
        """Compare what the machine has with what the services need."""
        required = requirements_of(self._settings, is_new=not self._folder.exists())
        return check_machine(required, Machine.this(self._folder), self._folder)

    def supply(self, *, load: bool) -> None:
        """Do nothing: processes run from the installed tools and from this environment's libraries."""

    def reach(self) -> None:
        """Do nothing: a machine that runs this answers."""

    def await_rollouts(self) -> None:
        """Do nothing: our own providers have waited for each process."""

    def settle(self, pending: list[PendingCreate]) -> None:
        """Return None: our own providers adopt what they find."""
        del pending

    def remove_leftovers(self, *, keep_data: bool) -> list[str]:
        """Stop processes and remove the folder."""
        stopped = leftovers.stop_processes(self._folder)
        self._unknown = leftovers.remove_folder(self._folder, keep_data=keep_data)
        return [f"stopped what was still running: {name}" for name in stopped]

    def leftovers(self, *, keep_data: bool) -> list[str]:
        """Return processes that run, ports that answer, and files that are not the stack's."""
        del keep_data
        problems = [f"process {process.pid} runs" for process in leftovers.processes(self._folder)]
        problems += [f"port {port} of {host} answers" for host, port in leftovers.listening(self._addresses)]
        return problems + [f"{path} is no file of the stack: remove it yourself" for path in self._unknown]

    def after_removal(self, *, keep_data: bool) -> str:
        """Return where the data is, if it is kept."""
        kept = keep_data and self._folder.exists()
        data = f"its data is kept in {self._folder}" if kept else f"{self._folder} is gone"
        return f"no process, no port, no state; {data}"


def _addresses(environment: str) -> list[tuple[str, int]]:
    with suppress(SettingsError):
        return leftovers.addresses(Settings.load(environment).services)
    return []
