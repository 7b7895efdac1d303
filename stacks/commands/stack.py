"""From nothing to a stack that collects, and back to nothing: what the Makefile's commands do."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from marketlake.settings import Settings, platform_file
from rich.console import Console

from components.supervision.layout import KEEP_DATA_VARIABLE
from stacks.commands.summary import console_table, outcome_table, rows_of, silver_tables
from stacks.engine.locks import heal_locks, locks
from stacks.engine.pending import pending_creates
from stacks.engine.policy_pack import PoliciesUnavailableError, levels_file, policy_arguments, why_no_policies
from stacks.engine.process import finish, read, run
from stacks.engine.salt import take_out_salt
from stacks.engine.workspace import Workspace
from stacks.preflight import Premises, premises_of
from stacks.preview.report import Preview
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.validation import read_environment, require_secrets

SAMPLES = "samples"


class LockedError(Exception):
    """Another command is changing the stack."""


class LeftoverError(Exception):
    """Something of a destroyed stack is still there."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One environment of this user, and the commands on it.

    Errors of the programs that do the work come as :class:`stacks.engine.process.ProgramError`, after they have
    told the user themselves.
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
    def exists(self) -> bool:
        """Pulumi knows it."""
        return self.workspace.state_file(self.name).exists()

    def validate(self) -> EnvironmentSettings:
        """Check the settings without touching anything.

        Raises:
            InvalidSettingsError: they are wrong.
        """
        return read_environment(self.settings_file)

    def up(self, *, collect: bool = True) -> None:
        """Bring the stack to its settings, repair what drifted, and collect the sample files.

        Raises:
            InvalidSettingsError: the settings are wrong, or a secret is missing.
            NotEnoughError: the machine, or the cluster, is too small or lacks something.
            KubeconfigMissingError: nothing opens the cluster.
            ClusterUnreachableError: it does not answer.
            LockedError: another command is changing the stack.
            ProgramError: a step failed; repeating the command goes on from there.
            InterruptError: the user stopped it; so does that.
        """
        began = time.monotonic()
        settings = self.validate()
        require_secrets(settings, self.name, source=str(self.settings_file))
        premises = self._checked(settings)
        premises.supply(bring=True)
        self._prepare()
        self._settle(premises)
        # Refreshed first, because an unchanged program would not notice that, say, a supervisor was killed.
        self._pulumi("up", "--yes", "--skip-preview", "--refresh", "--suppress-outputs")
        if collect:
            self._collect(settings)
        self._show_outcome(tables=collect)
        self._say(f"up after {time.monotonic() - began:.0f} s")

    def preview(self) -> None:
        """Show what :meth:`up` would change, and what the policies find in it. Raises as :meth:`up`."""
        settings = self.validate()
        require_secrets(settings, self.name, source=str(self.settings_file))
        self._checked(settings).supply(bring=False)
        self._prepare(changing=False)
        self._pulumi("preview", "--refresh", *self._policies())

    def previewed(self, *, refresh: bool = False) -> Preview:
        """What :meth:`up` would change, for a report. A preview that fails is one, too.

        Args:
            refresh: look at what really runs first, which needs every server to be reachable.

        Raises:
            InvalidSettingsError: the settings are wrong.
            ToolMissingError: Pulumi is not installed.
        """
        self.validate()
        self._prepare(changing=False)
        with TemporaryDirectory(prefix="marketlake-preview-") as folder:
            events = Path(folder, "events.json")
            arguments = ["--json", "--event-log", str(events), *(["--refresh"] if refresh else [])]
            # Findings of policies are among the engine's events alone, and `--event-log` is a developer's option.
            environment = self.workspace.environment() | {"PULUMI_DEBUG_COMMANDS": "true"}
            try:
                ended = finish(
                    self._argv("preview", *arguments, *self._policies()),
                    env=environment,
                    cwd=self.workspace.project,
                )
            finally:
                take_out_salt(self.settings_file, self.workspace.state_file(self.name))
            return Preview.of(
                self.name,
                ended.out,
                events.read_text() if events.exists() else "",
                failed=ended.code != 0,
                errors=ended.errors,
                without_policies=why_no_policies(),
                refreshed=refresh,
            )

    def check_policies(self, state: Path | None = None) -> None:
        """Hold a recorded state to the policies.

        Args:
            state: a file that `pulumi stack export` wrote; the stack's own state when omitted.

        Raises:
            PoliciesUnavailableError: they cannot run here, or there is no state.
            ProgramError: a mandatory rule is broken.
        """
        if why := why_no_policies():
            raise PoliciesUnavailableError(f"Policies cannot be checked: {why}.")
        if state is None and not self.exists:
            raise PoliciesUnavailableError(
                f"There is no stack {self.name!r} whose state could be checked: `make up ENV={self.name}` makes one."
            )
        self.workspace.prepare()
        with TemporaryDirectory(prefix="marketlake-state-") as folder:
            if state is None:
                state = Path(folder, "state.json")
                self._quietly("stack", "export", "--stack", self.name, "--file", str(state))
            levels = levels_file(self.settings_file, self.name)
            self._say(f"checking the policies over {state.name} of {self.name!r}")
            run(
                ["pulumi", "policy", "analyze", "--file", str(state.absolute()), *policy_arguments(levels)],
                env=self.workspace.environment(),
                cwd=self.workspace.project,
            )

    def refresh(self) -> None:
        """Bring Pulumi's state to what really runs. Raises as :meth:`up`."""
        premises = premises_of(self.name, self.validate())
        premises.reach()
        self._prepare()
        if not self._settle(premises):
            self._pulumi("refresh", "--yes", "--skip-preview")

    def down(self, *, keep_data: bool) -> None:
        """Destroy the stack and prove that nothing of it stayed.

        Raises:
            InvalidSettingsError: the settings, which say where the data lies, are wrong.
            LockedError: another command is changing the stack.
            ProgramError: Pulumi could not destroy something; repeating the command goes on from there.
            LeftoverError: something stayed.
            KubeconfigMissingError: nothing opens the cluster.
            ClusterUnreachableError: it does not answer.
        """
        settings = self.validate()
        keep = keep_data or settings.keep_data
        premises = premises_of(self.name, settings)
        premises.reach()
        if self.exists:
            self._prepare()
            self._settle(premises)
            self._pulumi(
                "destroy", "--yes", "--skip-preview", variables={KEEP_DATA_VARIABLE: "keep"} if keep else {}
            )
        else:
            self._say(f"there is no stack {self.name!r}; looking for what may be left of one")
        for line in premises.clear(keep_data=keep):
            self._say(line)
        if self.exists:
            self._quietly("stack", "rm", self.name, "--yes", "--preserve-config")
        self.workspace.forget(self.name)
        self._prove_gone(premises, keep=keep)
        if elsewhere := _elsewhere(settings):
            self._say(f"what it made in servers of somebody else's stays there: {', '.join(elsewhere)}")

    def exports(self) -> str:
        """Shell commands after which plain `pulumi` works on this stack; the stack is selected.

        Raises:
            ToolMissingError: Pulumi is not installed.
        """
        self._prepare(changing=False)
        self._quietly("stack", "select", self.name)
        return self.workspace.exports()

    def _prepare(self, *, changing: bool = True) -> None:
        """Folders, passphrase, the stack itself; no lock of a killed command and, before changes, none at
        all.
        """
        self.workspace.prepare()
        folder = self.workspace.lock_folder(self.name)
        for lock in heal_locks(folder):
            self._say(
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

    def _initialise(self) -> None:
        """Create the stack in the backend. Pulumi rewrites the settings file for that, which is undone."""
        file = self.workspace.settings_file(self.name)
        before = file.read_bytes() if file.exists() else None
        try:
            self._quietly("stack", "init", self.name, "--no-select", "--non-interactive")
        finally:
            if before is None:
                file.unlink(missing_ok=True)
            elif file.read_bytes() != before:
                file.write_bytes(before)
        self._say(f"made the stack {self.name!r}; its state is in {self.workspace.backend}")

    def _policies(self) -> list[str]:
        """Arguments by which Pulumi runs the policies; none, and a word about it, where it cannot."""
        if why := why_no_policies():
            self._say(f"warning: the policies are not run: {why}")
            return []
        return policy_arguments(levels_file(self.settings_file, self.name))

    def _argv(self, command: str, *arguments: str) -> list[str]:
        chosen = ["--config-file", str(self.config_file.absolute())] if self.config_file else []
        return ["pulumi", command, "--stack", self.name, *chosen, *arguments]

    def _pulumi(self, command: str, *arguments: str, variables: dict[str, str] | None = None) -> None:
        argv = self._argv(command, *arguments)
        environment = self.workspace.environment() | (variables or {})
        self._say(f"pulumi {command}")
        try:
            run(argv, env=environment, cwd=self.workspace.project)
        finally:
            take_out_salt(self.settings_file, self.workspace.state_file(self.name))

    def _quietly(self, *arguments: str) -> str:
        return read(["pulumi", *arguments], env=self.workspace.environment(), cwd=self.workspace.project)

    def _collect(self, settings: EnvironmentSettings) -> None:
        if settings.venue.stand_in:
            self._say("publishing the sample files in the stand-in venue")
            self._marketlake("venue", "publish", SAMPLES)
        if settings.venue.stand_in and settings.venue.endpoint is None:
            self._say("collecting them")
            self._marketlake("collect", "--venue", "binance", "--all")

    def _show_outcome(self, *, tables: bool) -> None:
        if tables:
            outcomes = silver_tables(lambda sql: rows_of(self._ask("sql", "--json", sql)))
            self.console.print(outcome_table(outcomes))
        self.console.print(console_table(Settings.load(self.name).services))
        self._say(f"their users and passwords are in {platform_file(self.name)}, which only you can read")

    def _marketlake(self, *arguments: str) -> None:
        run(self._command(arguments), env=self._for_runtime(), cwd=self.workspace.project)

    def _ask(self, *arguments: str) -> str:
        return read(self._command(arguments), env=self._for_runtime(), cwd=self.workspace.project)

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [str(Path(sys.prefix, "bin", "marketlake")), *arguments]

    def _for_runtime(self) -> dict[str, str]:
        return {**os.environ, "MARKETLAKE_ENV": self.name}

    def _checked(self, settings: EnvironmentSettings) -> Premises:
        """Where the stack runs, which can take it."""
        premises = premises_of(self.name, settings)
        for warning in premises.check():
            self._say(f"warning: {warning}")
        return premises

    def _settle(self, premises: Premises) -> bool:
        """Let Pulumi know what became of what a killed command began to create; True if it was told."""
        pending = pending_creates(self.workspace.state_file(self.name))
        if not pending:
            return False
        gone = premises.settle(pending)
        if gone is None:
            return False
        for create in gone:
            self._say(f"deleted what a killed command had created without recording it: {create.name}")
        self._pulumi("refresh", "--yes", "--skip-preview", "--clear-pending-creates")
        return True

    def _prove_gone(self, premises: Premises, *, keep: bool) -> None:
        problems = premises.left(keep_data=keep)
        if self.exists:
            problems.append(f"its state is in {self.workspace.state_file(self.name)}")
        if problems:
            lines = "".join(f"\n  {problem}" for problem in problems)
            raise LeftoverError(f"Of the stack {self.name!r} something is left:{lines}")
        self._say(f"nothing of {self.name!r} is left: {premises.fate(keep_data=keep)}")

    def _say(self, line: str) -> None:
        self.console.print(f"» {line}", markup=False, highlight=False, soft_wrap=True)


def _elsewhere(settings: EnvironmentSettings) -> list[str]:
    """What lies in servers that the stack does not own."""
    found = []
    if database := settings.database.external:
        found.append(f"databases at {database.host}")
    if store := settings.object_store.external:
        found.append(f"buckets at {store.endpoint}")
    if bus := settings.event_bus.external:
        found.append(f"topics at {bus.bootstrap_servers}")
    return found
