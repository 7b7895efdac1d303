"""Where Pulumi keeps what it knows of the stacks, and with which environment it runs.

The state lies in a folder of its own, never in a store that a stack manages, and outlives every stack's
data. Its secrets are encrypted with a passphrase that is made once per user and kept apart from it.
"""

import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from toolchain import locate
from toolchain.links import bin_folder

PROJECT = "marketlake"
PROJECT_FOLDER = Path(__file__).resolve().parents[2]
PULUMI_TOOLS = ("pulumi", "pulumi-language-python", "pulumi-python-scripts")


class PassphraseLostError(Exception):
    """There is state, but the passphrase of its secrets is gone."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """One user's Pulumi workspace on this machine."""

    project: Path
    """The folder of Pulumi.yaml."""
    config_home: Path
    """Holds the passphrase."""
    state_home: Path
    """Holds the state of all stacks."""

    @classmethod
    def of_user(cls, variables: Mapping[str, str] | None = None) -> "Workspace":
        """The workspace in the user's XDG folders (``~/.config`` and ``~/.local/state`` by default)."""
        given = os.environ if variables is None else variables
        config = given.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        state = given.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return cls(PROJECT_FOLDER, Path(config) / "marketlake", Path(state) / "marketlake")

    @property
    def passphrase_file(self) -> Path:
        """The passphrase of the stacks' secrets, mode 0600."""
        return self.config_home / "pulumi-passphrase"

    @property
    def backend(self) -> Path:
        """Pulumi's file backend."""
        return self.state_home / "state"

    @property
    def pulumi_home(self) -> Path:
        """Which stack is selected, and Pulumi's caches."""
        return self.state_home / "pulumi"

    def state_file(self, stack: str) -> Path:
        """The state of a stack; it exists if the stack does."""
        return self.backend / ".pulumi" / "stacks" / PROJECT / f"{stack}.json"

    def lock_folder(self, stack: str) -> Path:
        """The locks of a stack: one file for each command that changes it."""
        return self.backend / ".pulumi" / "locks" / "organization" / PROJECT / stack

    def settings_file(self, stack: str) -> Path:
        """The environment's committed settings."""
        return self.project / "stacks" / "environments" / f"Pulumi.{stack}.yaml"

    def environments(self) -> list[str]:
        """Names of the environments that have committed settings."""
        files = self.settings_file("any").parent.glob("Pulumi.*.yaml")
        return sorted(file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files)

    def prepare(self) -> None:
        """Make the folders (mode 0700) and, the first time, the passphrase.

        Raises:
            PassphraseLostError: there are stacks but no passphrase; a new one could not read them.
        """
        for folder in (self.config_home, self.state_home, self.backend, self.pulumi_home):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        if self.passphrase_file.exists():
            self.passphrase_file.chmod(0o600)
            return
        if stacks := sorted(file.stem for file in self.state_file("any").parent.glob("*.json")):
            raise PassphraseLostError(
                f"{self.passphrase_file} is gone, and without it the state of {', '.join(stacks)} in "
                f"{self.backend} cannot be read. Put the file back; or, to start anew, stop what still runs "
                f"of them and remove {self.backend}."
            )
        _write_once(self.passphrase_file, secrets.token_urlsafe(32))

    def forget(self, stack: str) -> None:
        """Remove what Pulumi keeps of a stack after its removal: copies of its former states, its history."""
        pulumi = self.backend / ".pulumi"
        for kind in ("backups", "history"):
            shutil.rmtree(pulumi / kind / PROJECT / stack, ignore_errors=True)
        shutil.rmtree(self.lock_folder(stack), ignore_errors=True)
        for copy in self.state_file(stack).parent.glob(f"{stack}.json.*"):
            copy.unlink(missing_ok=True)

    def variables(self) -> dict[str, str]:
        """Return the environment variables of `pulumi`, without PATH."""
        return {
            "PULUMI_HOME": str(self.pulumi_home),
            "PULUMI_BACKEND_URL": f"file://{quote(str(self.backend))}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(self.passphrase_file),
            "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",  # the settings file carries no salt
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            # gRPC's fork handlers crash children that a provider starts under another account.
            "GRPC_ENABLE_FORK_SUPPORT": "false",
        }

    def search_path(self) -> list[Path]:
        """Folders to put before PATH: the pinned tools, and this project's Python.

        Raises:
            ToolMissingError: a part of Pulumi is not installed.
        """
        for name in PULUMI_TOOLS:
            locate(name)
        return [bin_folder(), Path(sys.prefix, "bin")]

    def environment(self) -> dict[str, str]:
        """The whole environment in which `pulumi` runs.

        Raises:
            ToolMissingError: a part of Pulumi is not installed.
        """
        path = os.pathsep.join([*map(str, self.search_path()), os.environ.get("PATH", os.defpath)])
        inherited = {key: value for key, value in os.environ.items() if key != "PULUMI_CONFIG_PASSPHRASE"}
        return {**inherited, **self.variables(), "PATH": path}

    def exports(self) -> str:
        """Shell commands after which plain `pulumi` works in the project's folder.

        `pulumi` becomes a function: see :mod:`stacks.engine.state` for what it does after the real one.

        Raises:
            ToolMissingError: a part of Pulumi is not installed.
        """
        path = os.pathsep.join(shlex.quote(str(folder)) for folder in self.search_path())
        lines = [f"export PATH={path}{os.pathsep}$PATH", "unset PULUMI_CONFIG_PASSPHRASE"]
        lines += [f"export {key}={shlex.quote(value)}" for key, value in self.variables().items()]
        folders = [self.settings_file("any").parent, self.state_file("any").parent]
        clean = shlex.join(
            [str(Path(sys.prefix, "bin", "python")), "-m", "stacks.engine.state", *map(str, folders)]
        )
        lines.append(f'pulumi() {{ command pulumi "$@"; set -- "$?"; {clean}; return "$1"; }}')
        return "\n".join(lines)


def _write_once(path: Path, text: str) -> None:
    """Create a file of mode 0600 with its content, unless another process does so first."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)
