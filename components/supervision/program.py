"""One service as it runs on this machine: plain data that `pulumi up` records and that the tests use as well."""

from pathlib import Path

from marketlake.settings import HealthKind
from pydantic import BaseModel, ConfigDict

from components.supervision.layout import StackFolder


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SetupCommand(_Data):
    """A command that runs to its end before the program starts; see :class:`components.service.Command`."""

    name: str
    argv: tuple[str, ...]
    stdin: str = ""
    creates: str = ""
    staged: bool = False


class HostProgram(_Data):
    """Everything that is needed to run one service under the supervisor of one stack."""

    folder: str
    """The stack's folder."""
    name: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    secret_environment: dict[str, str]
    files: dict[str, str]
    secret_files: dict[str, str]
    hidden: tuple[str, ...]
    """The secrets themselves: no message may quote them."""
    volumes: dict[str, int]
    """Room in MiB that has to be free when the volume is made."""
    setup: tuple[SetupCommand, ...]
    tool_copies: dict[str, str]
    """Tool trees to copy to where the service's account can read them: destination → source."""
    health: HealthKind
    health_target: str
    """What the health check asks; empty for HealthKind.PROCESS."""
    health_timeout_s: float
    stop_signal: str
    stop_grace_s: int
    replicas: int
    unprivileged: bool
    """Where this user is root, the program runs as another one."""

    @property
    def stack(self) -> StackFolder:
        """The paths of the stack."""
        return StackFolder(Path(self.folder))

    @property
    def process_names(self) -> tuple[str, ...]:
        """Names of the processes within the supervisor's group of the service's name."""
        if self.replicas == 1:
            return (self.name,)
        return tuple(f"{self.name}-{number}" for number in range(self.replicas))
