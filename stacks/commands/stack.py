"""One environment of this user, and the programs that work on it."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from stacks.engine.policy_pack import levels_file, policy_arguments
from stacks.engine.process import Ended, finish, read, run
from stacks.engine.state import heal_locks, locks, pending_creates, remove_salt
from stacks.engine.workspace import Workspace
from stacks.preflight import Preflight
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.validation import read_environment


class LockedError(Exception):
    """Another command is changing the stack."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One environment of this user.

    Errors of the programs that do the work come as :class:`stacks.engine.process.ProgramError`, after the programs
    have shown them to the user themselves.
    """

    name: str
    workspace: Workspace
    console: Console
    config_file: Path | None = None
    """Settings to use instead of the environment's committed file."""

    @property
    def settings_file(self) -> Path:
        """Where this environment's settings are read."""
        return self.config_file or self.workspace.settings_file(self.name)

    @property
    def state_file(self) -> Path:
        """Where Pulumi keeps its state."""
        return self.workspace.state_file(self.name)

    @property
    def policy_levels(self) -> Path:
        """Where the environment says at which level a rule holds."""
        return levels_file(self.settings_file, self.name)

    @property
    def exists(self) -> bool:
        """Pulumi knows it."""
        return self.state_file.exists()

    def validate(self) -> EnvironmentSettings:
        """Check the settings without touching anything.

        Raises:
            InvalidSettingsError: they are wrong.
        """
        return read_environment(self.settings_file)

    def exports(self) -> str:
        """Return shell commands after which plain `pulumi` works on this stack; the stack is selected.

        Raises:
            ToolMissingError: Pulumi is not installed.
        """
        self.prepare(changing=False)
        self.pulumi_quietly("stack", "select", self.name)
        return self.workspace.exports()

    def prepare(self, *, changing: bool = True) -> None:
        """Create the folders, the passphrase and the stack itself where they are missing, and heal stale locks.

        Args:
            changing: the stack is about to be changed, so no other command may be changing it.

        Raises:
            LockedError: another command is changing the stack.
        """
        self.workspace.prepare()
        folder = self.workspace.lock_folder(self.name)
        for lock in heal_locks(folder):
            self.say(
                f"removed the lock of a command that was killed (process {lock.pid}, "
                f"{lock.since:%Y-%m-%d %H:%M:%S} UTC); what it was doing is taken up again"
            )
        if changing and (held := next(iter(locks(folder)), None)):
            raise LockedError(
                f"The stack {self.name!r} is being changed by process {held.pid} of {held.user} on "
                f"{held.host} since {held.since:%Y-%m-%d %H:%M:%S} UTC. Wait for it to end, or stop it "
                "(Ctrl-C there), and run this again."
            )
        if not self.exists:
            self._initialise()

    def settle(self, preflight: Preflight) -> bool:
        """Reconcile the state with what a killed command began to create.

        Returns:
            Whether that took a refresh of the state.
        """
        pending = pending_creates(self.state_file)
        if not pending:
            return False
        deleted = preflight.settle(pending)
        if deleted is None:
            return False
        for create in deleted:
            self.say(f"deleted what a killed command had created without recording it: {create.name}")
        self.pulumi("refresh", "--yes", "--skip-preview", "--clear-pending-creates")
        return True

    def policy_arguments(self) -> list[str]:
        """Return the arguments by which Pulumi runs the policies."""
        return policy_arguments(self.policy_levels)

    def pulumi(self, command: str, *arguments: str, variables: Mapping[str, str] | None = None) -> None:
        """Run a command of Pulumi on this stack, in front of the user."""
        self.say(f"pulumi {command}")
        try:
            self.pulumi_bare(*self._on_stack(command, arguments), variables=variables)
        finally:
            remove_salt(self.settings_file, self.state_file)

    def pulumi_bare(self, *arguments: str, variables: Mapping[str, str] | None = None) -> None:
        """Run Pulumi with just these arguments, in front of the user."""
        environment = self.workspace.environment() | dict(variables or {})
        run(["pulumi", *arguments], env=environment, cwd=self.workspace.project)

    def pulumi_finished(self, command: str, *arguments: str, variables: Mapping[str, str]) -> Ended:
        """Run a command of Pulumi on this stack to its end, whether it succeeds or not, and return its output."""
        try:
            return finish(
                ["pulumi", *self._on_stack(command, arguments)],
                env=self.workspace.environment() | dict(variables),
                cwd=self.workspace.project,
            )
        finally:
            remove_salt(self.settings_file, self.state_file)

    def pulumi_quietly(self, *arguments: str) -> str:
        """Run Pulumi with just these arguments and return its output."""
        return read(["pulumi", *arguments], env=self.workspace.environment(), cwd=self.workspace.project)

    def marketlake(self, *arguments: str) -> None:
        """Run the command `marketlake` on this environment, in front of the user."""
        run(self._command(arguments), env=self._for_runtime(), cwd=self.workspace.project)

    def marketlake_quietly(self, *arguments: str) -> str:
        """Run the command `marketlake` on this environment and return its output."""
        return read(self._command(arguments), env=self._for_runtime(), cwd=self.workspace.project)

    def say(self, line: str) -> None:
        """Print one line about a step."""
        self.console.print(f"» {line}", markup=False, highlight=False, soft_wrap=True)

    def _initialise(self) -> None:
        """Create the stack in the backend. Pulumi rewrites the settings file for that, which is undone."""
        file = self.workspace.settings_file(self.name)
        before = file.read_bytes() if file.exists() else None
        try:
            self.pulumi_quietly("stack", "init", self.name, "--no-select", "--non-interactive")
        finally:
            if before is None:
                file.unlink(missing_ok=True)
            elif file.read_bytes() != before:
                file.write_bytes(before)
        self.say(f"made the stack {self.name!r}; its state is in {self.workspace.backend}")

    def _on_stack(self, command: str, arguments: Sequence[str]) -> list[str]:
        chosen = ["--config-file", str(self.config_file.absolute())] if self.config_file else []
        return [command, "--stack", self.name, *chosen, *arguments]

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [str(Path(sys.prefix, "bin", "marketlake")), *arguments]

    def _for_runtime(self) -> dict[str, str]:
        return {**os.environ, "MARKETLAKE_ENV": self.name}
