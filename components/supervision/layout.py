"""Paths of one stack on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path

KEEP_DATA_VARIABLE = "MARKETLAKE_DATA"
"""With the value ``keep`` in the environment of a `pulumi destroy`, volumes and what lies in them survive it."""

STACK_MARK = "MARKETLAKE_STACK_FOLDER"
"""Environment variable of every process of a stack, by which even an orphan is recognised. Its value is the folder."""
SERVICE_MARK = "MARKETLAKE_SERVICE"


def keep_data() -> bool:
    """Return whether the data is kept when the stack is destroyed."""
    return os.environ.get(KEEP_DATA_VARIABLE) == "keep"


@dataclass(frozen=True, slots=True)
class StackFolder:
    """The folder of one stack; the properties are paths below it."""

    root: Path

    @property
    def supervisor(self) -> Path:
        """The supervisor's own files, socket and log."""
        return self.root / "supervisor"

    @property
    def programs(self) -> Path:
        """The supervisor's configuration, one file a service."""
        return self.supervisor / "programs"

    @property
    def socket(self) -> Path:
        """The supervisor's UNIX socket."""
        return self.supervisor / "supervisor.sock"

    @property
    def logs(self) -> Path:
        """The services' output, rotated."""
        return self.root / "logs"

    @property
    def services(self) -> Path:
        """A folder per service with its configuration."""
        return self.root / "services"

    @property
    def data(self) -> Path:
        """The volumes."""
        return self.root / "data"

    @property
    def tools(self) -> Path:
        """Programs that had to be copied because their service may not enter the tool cache."""
        return self.root / "tools"

    @property
    def reservations(self) -> Path:
        """Which port belongs to which service."""
        return self.root / "ports.json"

    def service(self, name: str) -> Path:
        """Folder of a service's configuration; it is its working folder and its home, too."""
        return self.services / name

    def temporary(self, service: str) -> Path:
        """Scratch files of a service: in the machine's shared folder other users' would be in the way."""
        return self.service(service) / "tmp"

    def file(self, service: str, name: str) -> Path:
        """A configuration file of a service."""
        return self.service(service) / name

    def volume(self, service: str, name: str) -> Path:
        """A volume of a service."""
        return self.data / service / name

    def log(self, process: str) -> Path:
        """The log of a process; a service of one replica has one of its own name."""
        return self.logs / f"{process}.log"
