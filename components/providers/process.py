"""One service as supervised processes on this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pulumi
from marketlake.settings import HealthKind
from pulumi.dynamic import Resource
from pydantic import ConfigDict, Field, ValidationError

from components.providers.base import Inputs, Provider, Record, ResourceError
from components.supervision.accounts import AccountError
from components.supervision.installation import (
    InstallationError,
    account_of,
    install,
    installed_differs,
    run_setup,
    uninstall,
)
from components.supervision.layout import StackFolder, keep_data
from components.supervision.program import HostProgram
from components.supervision.readiness import NotReadyError, answers, await_ready, last_lines
from components.supervision.sockets import LOOPBACK, description, holder, listens
from components.supervision.supervisord import Supervisor, SupervisorError

SECRET_PROPERTIES = ("secret_environment", "secret_files", "hidden")


class ProcessRecord(Record):
    """What a program is found, and removed, by; whatever else was recorded says how it should run."""

    model_config = ConfigDict(extra="allow")

    folder: str
    name: str
    tool_copies: dict[str, str] = Field(default_factory=dict)
    keep_data: bool = False

    @property
    def stack(self) -> StackFolder:
        """The paths of the stack."""
        return StackFolder(Path(self.folder))

    @property
    def program(self) -> HostProgram | None:
        """The recorded program; None where another version of this project recorded one that cannot be run now."""
        values = self.model_dump()
        try:
            return HostProgram.model_validate(
                {key: values[key] for key in HostProgram.model_fields if key in values}
            )
        except ValidationError:
            return None


class ProcessInputs(HostProgram, ProcessRecord, Inputs):
    """A program, what becomes of its data, and the version of this provider."""


class ProcessProvider(Provider[ProcessInputs, ProcessRecord]):
    """Programs under a stack's supervisor."""

    VERSION: ClassVar[str] = "1"
    model = ProcessInputs
    record = ProcessRecord
    identity = frozenset({"folder", "name"})

    def resource_id(self, declared: ProcessInputs) -> str:
        """The service's name."""
        return declared.name

    def apply(self, declared: ProcessInputs) -> Mapping[str, Any]:
        """Write its files, start it, and wait until it is ready; running as declared, it is left alone."""
        supervisor = Supervisor(declared.stack)
        try:
            changed = install(declared)
            changed = supervisor.add(declared, account_of(declared)) or changed
            if changed or not supervisor.runs(declared):
                supervisor.stop_program(declared.name)
                run_setup(declared)
                supervisor.start_program(declared.name)
            _await(declared, supervisor)
        except (InstallationError, AccountError, SupervisorError, NotReadyError) as error:
            raise ResourceError(str(error)) from error
        return {}

    def observe(self, recorded: ProcessRecord) -> Mapping[str, Any] | None:
        """None unless it runs exactly as recorded: then nothing is left to do but to bring it up again."""
        program = recorded.program
        if program is None:
            return None
        supervisor = Supervisor(program.stack)
        as_recorded = not installed_differs(program) and not supervisor.differs(program, account_of(program))
        return {} if as_recorded and supervisor.runs(program) else None

    def remove(self, recorded: ProcessRecord) -> None:
        """End it and remove its files, and its data unless they are to be kept."""
        try:
            Supervisor(recorded.stack).remove(recorded.name)
            uninstall(
                recorded.stack,
                recorded.name,
                tool_copies=recorded.tool_copies,
                keep_data=recorded.keep_data or keep_data(),
            )
        except (SupervisorError, OSError) as error:
            raise ResourceError(f"{recorded.name}: {error}") from error


class Process(Resource, module="marketlake", name="Process"):
    """A service's processes."""

    name: pulumi.Output[str]

    def __init__(self, name: str, args: pulumi.Inputs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare a process under the resource name `name`; `args` are the fields of a HostProgram."""
        super().__init__(
            ProcessProvider(),
            name,
            {**args, "version": ProcessProvider.VERSION},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=list(SECRET_PROPERTIES))
            ),
        )


def _await(program: HostProgram, supervisor: Supervisor) -> None:
    def ready() -> bool:
        if program.health is HealthKind.PROCESS:
            return supervisor.has_settled(program)
        return (
            supervisor.runs(program)
            and answers(program.health, program.health_target)
            and listens(_port(program), supervisor.processes(program)) is not False
        )

    def failed() -> str | None:
        return _taken(program, supervisor) or supervisor.hopeless(program)

    try:
        await_ready(ready, failed, timeout_s=program.health_timeout_s, subject=program.name)
    except NotReadyError as error:
        log = program.stack.log(program.process_names[0])
        raise NotReadyError(
            f"{error} Its log, {log}, ends:\n{last_lines(log, hiding=program.hidden)}"
        ) from None


def _taken(program: HostProgram, supervisor: Supervisor) -> str | None:
    """Why the program cannot listen: a stranger does. Reserved ports are held by nobody until their service starts."""
    if program.health is HealthKind.PROCESS:
        return None
    port = _port(program)
    # In this order: the program might begin to listen in between.
    if not answers(HealthKind.TCP, f"{LOOPBACK}:{port}"):
        return None
    if listens(port, supervisor.processes(program)) is not False:
        return None
    return (
        f"its port {port} was taken meanwhile by {description(holder(port))}. `make up` or `pulumi up --refresh` "
        "gives it another one; if the settings name this one, end that process or name another"
    )


def _port(program: HostProgram) -> int:
    """The port that the health check asks."""
    authority = program.health_target.removeprefix("http://").partition("/")[0]
    return int(authority.rpartition(":")[2])
