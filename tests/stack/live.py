"""A throw-away stack beside the user's own, brought up and taken down by the project's own commands."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from marketlake.settings import ServiceInfo, Settings

from stacks import leftovers
from stacks.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[2]
NAME = "throwaway"
SECONDS = 600
MARKETLAKE = str(Path(sys.prefix, "bin", "marketlake"))


@dataclass
class LiveStack:
    """Where the stack lives, and the commands that a user would type."""

    home: Path
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds, by command."""

    @property
    def folder(self) -> Path:
        return self.home / "data" / NAME

    @property
    def config_file(self) -> Path:
        return self.home / f"Pulumi.{NAME}.yaml"

    @property
    def workspace(self) -> Workspace:
        return Workspace.of_user(self.variables)

    @property
    def variables(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MARKETLAKE_")}
        kept = {
            key: os.environ[key]
            for key in ("MARKETLAKE_CACHE", "MARKETLAKE_TOOL_MIRROR")
            if key in os.environ
        }
        own = {
            "MARKETLAKE_HOME": str(self.home / "data"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "state"),
            # The tools stay where the user has them, whatever the folders above say.
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
        }
        return inherited | kept | own

    @property
    def settings(self) -> Settings:
        return Settings(**json.loads((self.folder / "platform.json").read_text()))

    def make(self, command: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What `make <command>` runs."""
        began = time.monotonic()
        done = self._run(
            [
                sys.executable,
                "-m",
                "stacks.cli",
                command,
                "--env",
                NAME,
                "--config-file",
                str(self.config_file),
                *options,
            ]
        )
        self.timings[command] = time.monotonic() - began
        assert not check or done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, command: str, *options: str) -> "subprocess.Popen[str]":
        """The same, left running in a session of its own so that it can be killed whole."""
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "stacks.cli",
                command,
                "--env",
                NAME,
                "--config-file",
                str(self.config_file),
                *options,
            ],
            env=self.variables,
            cwd=PROJECT,
            start_new_session=True,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def pulumi(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Plain Pulumi, as after `eval "$(make -s env)"`."""
        options = ["--stack", NAME, "--non-interactive"]
        if arguments[0] != "stack":
            options += ["--config-file", str(self.config_file)]
        environment = {**self.workspace.environment(), **self.variables}
        path = os.pathsep.join([*map(str, self.workspace.search_path()), os.environ["PATH"]])
        done = self._run(["pulumi", *arguments, *options], {**environment, "PATH": path})
        assert not check or done.returncode == 0, f"pulumi {arguments} failed:\n{done.stdout}\n{done.stderr}"
        return done

    def marketlake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = self._run([MARKETLAKE, "--env", NAME, *arguments])
        assert not check or done.returncode == 0, (
            f"marketlake {arguments} failed:\n{done.stdout}\n{done.stderr}"
        )
        return done

    def sql(self, query: str) -> list[dict[str, Any]]:
        return json.loads(self.marketlake("sql", query, "--json").stdout)

    def status(self) -> list[dict[str, Any]]:
        seen = self.marketlake("status", "--json", check=False).stdout
        return json.loads(seen)["services"] if seen else []

    def service(self, name: str) -> ServiceInfo:
        return next(service for service in self.settings.services if service.name == name)

    def processes(self) -> list[psutil.Process]:
        """Every process of the stack, by the mark that each carries."""
        return leftovers.processes(self.folder)

    def wait_until_healthy(self, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not (states := self.status()) or not all(state["healthy"] for state in states):
            assert time.monotonic() < deadline, f"not healthy after {seconds} s: {states}"
            time.sleep(0.5)

    def remove(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def _run(self, argv: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            env=env or self.variables,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )
