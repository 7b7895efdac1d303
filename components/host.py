"""The base of a host target: a folder of this machine, and the supervisor of what runs in it."""

from typing import NotRequired, TypedDict

import pulumi

from components.component import Component
from components.providers.supervisor import SupervisorDaemon

_ALIASES = [pulumi.Alias(name="supervisor", parent=pulumi.ROOT_STACK_RESOURCE)]
"""Stacks that are older than this component have the supervisor by itself."""


class HostArgs(TypedDict):
    """Arguments of a host."""

    folder: pulumi.Input[str]
    """Absolute path; it becomes this stack's alone."""
    keep_data: NotRequired[bool]
    """Optional: volumes outlive the stack; when omitted they are deleted with it."""


class Host(Component, formerly="HostSpace"):
    """A folder with a supervisor: what a target of kind ``host`` needs."""

    folder: pulumi.Output[str]
    """Known once the supervisor runs."""
    supervisor: pulumi.Output[str]
    """Path of its UNIX socket."""

    def __init__(self, name: str, args: HostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the supervisor."""
        super().__init__(name, opts)
        self._daemon = SupervisorDaemon(
            f"{name}-supervisor",
            {"folder": args["folder"], "keep_data": args.get("keep_data", False)},
            pulumi.ResourceOptions.merge(self._child(), pulumi.ResourceOptions(aliases=_ALIASES)),
        )
        self.folder, self.supervisor = self._daemon.folder, self._daemon.socket
        self.register_outputs({"folder": self.folder, "supervisor": self.supervisor})

    @property
    def resource(self) -> pulumi.Resource:
        """The resource that everything in it is deleted with."""
        return self._daemon
