"""A throw-away stack beside the user's own, brought up and taken down by the project's own commands."""

import json
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from confluent_kafka.admin import AdminClient
from marketlake.cli.exit_codes import PlatformUnreachableError
from marketlake.cli.status import report_of, target_of
from marketlake.infrastructure.bus.connection import client_configuration
from marketlake.pipeline.serving.query import query
from marketlake.settings import ServiceInfo, Settings

from stacks.engine.workspace import Workspace
from tests.suite.shared import alone, publish

PROJECT = Path(__file__).resolve().parents[2]
NAME = "throwaway"
SECONDS = 600
FIRST_UP, FIRST_COLLECTION = "first up", "first collection"
"""Keys of :attr:`Platform.timings` beside those of commands."""
MARKETLAKE = str(Path(sys.prefix, "bin", "marketlake"))


@dataclass
class Platform(ABC):
    """Where the stack lives, the commands that a user would type, and the means to hurt it.

    What a target has to say about itself is abstract.
    """

    target: ClassVar[str]
    """The setting ``marketlake:target``."""
    in_the_middle: ClassVar[tuple[str, ...]] = ("collection-worker", "workflow-engine")
    """What takes part in a collection, and can be killed in the middle of one; in the order in which it is."""

    home: Path
    """Holds everything of the stack that lies on this machine."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds, by command; the last time that it ran."""

    def __post_init__(self) -> None:
        self.configure()

    @abstractmethod
    def kill(self, service: str) -> None:
        """End all processes of a service as a crash does, and return once they are gone and it was noticed."""

    @abstractmethod
    def logs(self) -> Iterator[tuple[str, bytes]]:
        """What every service wrote, with the name of where it lies."""

    @abstractmethod
    def kept_elsewhere(self) -> Iterator[tuple[str, bytes]]:
        """Everything else in which no secret may stand in clear: what is recorded of the stack, and for whom."""

    @abstractmethod
    def remains(self) -> set[str]:
        """What can still be seen of the stack apart from its data; empty when it is gone."""

    @abstractmethod
    def has_data(self) -> bool:
        """Whether the services' data is there, running or not."""

    @abstractmethod
    def discard(self) -> None:
        """End and remove whatever is left, by force."""

    @property
    def own_settings(self) -> dict[str, Any]:
        """Settings that this target needs beside its name."""
        return {}

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Write the settings file: the target's own settings, and `sections` by their keys."""
        values = {"target": self.target, **self.own_settings, **sections}
        config = {f"marketlake:{key}": value for key, value in values.items()}
        self.config_file.write_text(yaml.safe_dump({"config": config}))

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

    def bring(self) -> Self:
        """Come from nothing to what a first `make up` leaves, each step timed for itself."""
        with alone():
            self.make("up", "--no-collect")
            self.timings[FIRST_UP] = self.timings["up"]
            self.marketlake("venue", "publish", str(PROJECT / "samples"))
            self.marketlake("collect", "--venue", "binance", "--all")
        self.timings[FIRST_COLLECTION] = self.timings["marketlake collect"]
        publish(f"{FIRST_COLLECTION} {self.target}", self.timings[FIRST_COLLECTION])
        return self

    def tamper(self) -> Mapping[str, Callable[[], bool]]:
        """Change what is deployed behind Pulumi's back.

        Returns:
            Names that a preview has to mention, and whether what they name is mended.
        """
        bus = self.settings.event_bus
        admin = AdminClient(client_configuration(bus, client_id="tamper"))
        admin.delete_topics([bus.dead_letters_topic])[bus.dead_letters_topic].result(30)
        return {"dead-letters": lambda: bus.dead_letters_topic in admin.list_topics(timeout=10).topics}

    def make(
        self, command: str, *options: str, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """What `make <command>` runs."""
        began = time.monotonic()
        done = self._run(self._stacks(command, *options), {**self.variables, **variables})
        self.timings[command] = time.monotonic() - began
        assert not check or done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, command: str, *options: str) -> "subprocess.Popen[str]":
        """The same, left running in a session of its own so that it can be killed whole."""
        return subprocess.Popen(
            self._stacks(command, *options),
            env=self.variables,
            cwd=PROJECT,
            start_new_session=True,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_until_locked(self, up: "subprocess.Popen[str]") -> None:
        """Wait until a command that was started changes the stack."""
        locks = self.workspace.lock_folder(NAME)
        deadline = time.monotonic() + 120
        while not (locks.is_dir() and any(locks.iterdir())):
            assert time.monotonic() < deadline, "it never took the lock"
            assert up.poll() is None, "it ended before it could be killed"
            time.sleep(0.05)

    def pulumi(
        self, *arguments: str, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Plain Pulumi, as after `eval "$(make -s env)"`."""
        options = ["--stack", NAME, "--non-interactive"]
        if arguments[0] != "stack":
            options += ["--config-file", str(self.config_file)]
        environment = {**self.workspace.environment(), **self.variables, **variables}
        path = os.pathsep.join([*map(str, self.workspace.search_path()), os.environ["PATH"]])
        began = time.monotonic()
        done = self._run(["pulumi", *arguments, *options], {**environment, "PATH": path})
        self.timings[f"pulumi {arguments[0]}"] = time.monotonic() - began
        assert not check or done.returncode == 0, f"pulumi {arguments} failed:\n{done.stdout}\n{done.stderr}"
        return done

    def marketlake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        began = time.monotonic()
        done = self._run([MARKETLAKE, "--env", NAME, *arguments])
        self.timings[f"marketlake {arguments[0]}"] = time.monotonic() - began
        assert not check or done.returncode == 0, (
            f"marketlake {arguments} failed:\n{done.stdout}\n{done.stderr}"
        )
        return done

    def start_marketlake(self, *arguments: str) -> "subprocess.Popen[str]":
        """The same, left running."""
        return subprocess.Popen(
            [MARKETLAKE, "--env", NAME, *arguments],
            env=self.variables,
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def asked(self, *arguments: str) -> Any:
        """What the command says as JSON."""
        return json.loads(self.marketlake(*arguments, "--json").stdout)

    def sql(self, statement: str) -> list[dict[str, Any]]:
        """The rows that `marketlake sql` would print, without the start of a program for each statement."""
        rows: list[dict[str, Any]] = query(self.settings, statement).to_pylist()
        return rows

    def status(self) -> list[dict[str, Any]]:
        """What `marketlake status` sees, likewise; nothing where the cluster does not answer."""
        settings = self.settings
        try:
            target = target_of(settings)
        except PlatformUnreachableError:
            return []
        with ThreadPoolExecutor(len(settings.services)) as pool:
            return [asdict(seen) for seen in pool.map(partial(report_of, target=target), settings.services)]

    def status_with_memory(self, seconds: float = 120) -> list[dict[str, Any]]:
        """The status once all memory is seen: where a cluster measures it, that takes a minute."""
        deadline = time.monotonic() + seconds
        while not (states := self.status()) or not all(state["memory_bytes"] for state in states):
            assert time.monotonic() < deadline, f"no memory seen after {seconds} s: {states}"
            time.sleep(1)
        return states

    def service(self, name: str) -> ServiceInfo:
        return next(service for service in self.settings.services if service.name == name)

    def secrets(self) -> set[str]:
        """Every secret that a service or a user of this stack logs in with."""
        settings = self.settings
        parts = (
            settings.object_store.secret_access_key,
            settings.event_bus.password,
            settings.database.password,
            settings.workflow_engine.auth_string,
            settings.telemetry.password,
        )
        found = {part.get_secret_value() for part in parts if part}
        return found | {text.partition(":")[2] for text in found if ":" in text}

    def wait_until_healthy(self, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not (states := self.status()) or not all(state["healthy"] for state in states):
            assert time.monotonic() < deadline, f"not healthy after {seconds} s: {states}"
            time.sleep(0.2)

    def _stacks(self, command: str, *options: str) -> list[str]:
        chosen = ["--env", NAME, "--config-file", str(self.config_file)]
        return [sys.executable, "-m", "stacks.cli", command, *chosen, *options]

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
