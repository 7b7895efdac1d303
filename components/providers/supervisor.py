"""The supervisor of a stack on this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

import pulumi
from pulumi.dynamic import Resource

from components.providers.base import Inputs, Provider, Record, ResourceError
from components.supervision.accounts import AccountError
from components.supervision.files import remove
from components.supervision.layout import StackFolder, keep_data
from components.supervision.supervisord import Supervisor, SupervisorError


class SupervisorArgs(TypedDict):
    """Arguments of a supervisor."""

    folder: pulumi.Input[str]
    """The stack's folder."""
    keep_data: NotRequired[pulumi.Input[bool]]
    """Optional: leave the volumes when it is removed; when omitted they go with it."""


class SupervisorRecord(Record):
    """What a supervisor is found, and removed, by."""

    folder: str
    keep_data: bool = False


class SupervisorInputs(SupervisorRecord, Inputs):
    """The resolved :class:`SupervisorArgs`."""


class SupervisorProvider(Provider[SupervisorInputs, SupervisorRecord]):
    """Supervisors, each with a stack's folder of its own."""

    VERSION: ClassVar[str] = "1"
    model = SupervisorInputs
    record = SupervisorRecord
    identity = frozenset({"folder"})

    def resource_id(self, declared: SupervisorInputs) -> str:
        """The stack's folder."""
        return declared.folder

    def apply(self, declared: SupervisorInputs) -> Mapping[str, Any]:
        """Start the supervisor; what an earlier, killed one left running is ended first."""
        stack = StackFolder(Path(declared.folder))
        try:
            Supervisor(stack).start()
        except (SupervisorError, AccountError) as error:
            raise ResourceError(str(error)) from error
        except OSError as error:
            raise ResourceError(
                f"cannot write below {stack.root}: {error.strerror or error}. Correct the folder's permissions "
                "or free some room, or name another place with MARKETLAKE_HOME."
            ) from error
        return {"socket": str(stack.socket)}

    def observe(self, recorded: SupervisorRecord) -> Mapping[str, Any] | None:
        """Return its socket; None if it does not answer there."""
        stack = StackFolder(Path(recorded.folder))
        return {"socket": str(stack.socket)} if Supervisor(stack).is_running() else None

    def remove(self, recorded: SupervisorRecord) -> None:
        """End it with all processes of the stack, and remove the stack's folder, except data that is kept."""
        stack = StackFolder(Path(recorded.folder))
        try:
            Supervisor(stack).stop()
        except SupervisorError as error:
            raise ResourceError(str(error)) from error
        for path in (stack.supervisor, stack.services, stack.logs, stack.tools, stack.reservations):
            remove(path)
        if not (recorded.keep_data or keep_data()):
            remove(stack.data)
        if stack.root.exists() and not any(stack.root.iterdir()):
            stack.root.rmdir()


class SupervisorDaemon(Resource, module="marketlake", name="Supervisor"):
    """The supervisor of a stack."""

    folder: pulumi.Output[str]
    socket: pulumi.Output[str]
    """Path of its UNIX socket."""

    def __init__(self, name: str, args: SupervisorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the supervisor of the stack in `args["folder"]` under the resource name `name`."""
        super().__init__(
            SupervisorProvider(), name, {**args, "socket": None, "version": SupervisorProvider.VERSION}, opts
        )
