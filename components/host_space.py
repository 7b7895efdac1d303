"""A stack's place on this machine: a folder, and the supervisor of what runs in it."""

from typing import NotRequired, TypedDict

import pulumi

from components.component import Component
from components.providers.supervisor import SupervisorDaemon


class HostSpaceArgs(TypedDict):
    """What is declared of a stack's place on this machine."""

    folder: pulumi.Input[str]
    """Absolute path; it becomes this stack's alone."""
    keep_data: NotRequired[bool]
    """Optional: volumes outlive the stack; when omitted they go with it."""


class HostSpace(Component):
    """A folder with a supervisor: what a target of kind ``host`` needs."""

    folder: pulumi.Output[str]
    """Known once the supervisor runs."""
    supervisor: pulumi.Output[str]
    """Path of its UNIX socket."""

    def __init__(self, name: str, args: HostSpaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the supervisor."""
        super().__init__(name, opts)
        daemon = SupervisorDaemon(
            f"{name}-supervisor",
            {"folder": args["folder"], "keep_data": args.get("keep_data", False)},
            self._child(),
        )
        self.folder, self.supervisor = daemon.folder, daemon.socket
        self.register_outputs({"folder": self.folder, "supervisor": self.supervisor})
