"""The vocabulary in which a component says what it needs to run; a target realises it.

A :class:`Service` is plain, immutable data and knows no target. What only a target can know (a port's number, a
folder, where a program lies) and what only another resource can know (an address, a password) stands in its texts
as a placeholder:

================  ==================================================================================
``{bind}``         the IP address to listen on
``{port:N}``       the number that port N listens on
``{address:N}``    ``host:port`` where other services reach port N
``{self:N}``       ``host:port`` where the service itself reaches its port N
``{volume:N}``     the folder of volume N
``{file:N}``       the path of file N
``{bin:N}``        the executable N of the program
``{root:T}``       the folder that tool T is installed in
``{memory:P}``     P per cent of the service's memory, in whole MiB
``{logs}``         a glob that matches the log files of the platform's services
``{temporary}``    the service's own folder for scratch files, which is TMPDIR in its environment, too
``{input:N}``      a value of another component; it is no secret
``{secret:N}``     a secret; allowed in secret environment variables and in secret files only
================  ==================================================================================

Every other text in braces is left as it is. References are checked when a Service is made, so a misspelt name or a
secret in a command line is found by any test that merely builds the component.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from marketlake.settings import HealthKind

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
PLACEHOLDER = re.compile(
    r"\{(?:(bind|logs|temporary)|(port|address|self|volume|file|bin|root|memory|input|secret):([A-Za-z0-9_.-]+))\}"
)


class ServiceDefinitionError(ValueError):
    """A Service is inconsistent; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program of the bill of materials."""

    name: str
    """Its name there, which also gives the service's version."""
    needs: tuple[str, ...] = ()
    """Further tools that it runs with, e.g. ``java``."""
    pages_need_release: bool = False
    """Its web page is in the vendor's release only: a build from the package registry has none."""

    @property
    def tools(self) -> tuple[str, ...]:
        """All tools that must be installed."""
        return (self.name, *self.needs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A Python distribution that is installed with the runtime; its scripts are the executables."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port that the service listens on."""

    preferred: int
    """The number to take where nothing speaks against it."""
    scheme: str = "tcp"
    """``http`` or ``tcp``: how an address is shown to a person."""
    private: bool = False
    """Only the service itself connects to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A folder whose content outlives the process."""

    size_mib: int
    """Room that has to be free before the service starts for the first time; where volumes have a size, it."""
    scratch: bool = False
    """What is in it may be lost with the process."""
    backup: str | None = None
    """How its content is saved, or ``none: …`` and why that is all right; for what is no scratch."""
    storage_class: str | None = None
    """Kind of storage, where a target offers several; None: the target's usual one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A configuration file, written before the service starts."""

    text: str
    secret: bool = False
    """It may hold ``{secret:…}``; it is kept out of plain configuration stores and out of previews."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that must succeed before the program starts. It runs as the service does, and is repeatable."""

    name: str
    argv: tuple[str, ...]
    stdin: str | None = None
    """Name of the file that it reads."""
    creates: str | None = None
    """A path: where it exists already, the command is left out."""
    staged: bool = False
    """The command writes to the path of `creates` with ``.part`` behind it, which is renamed once it succeeded, so
    that an interrupted command is repeated from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The check that the service is ready for its dependants."""

    kind: HealthKind
    port: str | None = None
    path: str = "/"
    timeout_s: float = 60.0
    """After this long without an answer the start has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resources of one replica."""

    memory_mib: int
    """What the program's own limits (heap, caches) are derived from with ``{memory:P}``. Where a target can, it holds
    the service to it."""
    cpu_millis: int = 50
    """Thousandths of a core that are set aside for it where a target can; what is free beyond them it may use."""


class Importance(StrEnum):
    """Which services are evicted last when resources are short."""

    DATA = "data"
    """It keeps what others cannot work without."""
    SERVICE = "service"
    """It answers others."""
    WORK = "work"
    """It works through what lies there; later will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """How the service is ended."""

    signal: str = "TERM"
    grace_s: int = 10
    """Seconds until it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalServer:
    """A server outside the platform: a venue's archive, an external store."""

    port: int
    host: str | None = None
    """Its name or IP address; None: whatever has that port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One long-running program of the platform."""

    name: str
    """Lower-case letters, digits and hyphens, at most 31: it names processes, folders and network names."""
    program: Tool | Distribution
    argv: tuple[str, ...]
    health: Health
    resources: Resources
    ports: Mapping[str, Port] = field(default_factory=dict)
    """The first is the main one: it is the service's address."""
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, File] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    setup: tuple[Command, ...] = ()
    console: tuple[str, str] | None = None
    """Port and path of a web page for people."""
    stop: Stop = field(default_factory=Stop)
    replicas: int = 1
    max_replicas: int | None = None
    """Up to how many there may be under load, where a target can measure it; None: always `replicas`."""
    importance: Importance = Importance.SERVICE
    calls: tuple[str, ...] = ()
    """Names of the services that it connects to; where a target can, it closes every other way."""
    calls_external: tuple[ExternalServer, ...] = ()
    """The servers outside the platform that it connects to; where a target can, it closes every other way."""
    runs: "Service | None" = None
    """What it starts again and again, each time for one run: a child process of its own or, where a target has such,
    a job beside it. Only program, environment, files, resources and calls of it count."""
    heartbeat: str | None = None
    """Name of the environment variable that tells the program which file to touch every few seconds while it is well;
    for a program that serves nothing that could be asked."""
    refuses_root: bool = False
    """The program does not run as root: a target that is root gives it an account of its own."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ServiceDefinitionError(
                f"service name {self.name!r}: use lower-case letters, digits and hyphens, a letter first, at most 31"
            )
        if self.replicas < 0 or (self.replicas > 1 and (self.ports or self.volumes)):
            raise ServiceDefinitionError(
                f"service {self.name}: {self.replicas} replicas: only a service without ports and volumes can be "
                "repeated, and never less than 0 times"
            )
        if (self.health.kind is HealthKind.PROCESS) != (self.health.port is None):
            raise ServiceDefinitionError(
                f"service {self.name}: health by {self.health.kind} "
                f"{'asks no port' if self.health.port else 'needs the port to ask'}"
            )
        if self.max_replicas is not None and self.max_replicas < max(1, self.replicas):
            raise ServiceDefinitionError(
                f"service {self.name}: at most {self.max_replicas} replicas, but {self.replicas} to begin with"
            )
        named = [port for port in (self.health.port, self.console and self.console[0]) if port]
        named_files = [command.stdin for command in self.setup if command.stdin]
        for kind, names, known in (("port", named, self.ports), ("file", named_files, self.files)):
            for name in names:
                self._require(kind, name, known, "its definition")
        for place, text, may_be_secret in self._texts():
            self._check(place, text, may_be_secret=may_be_secret)

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the plain values that it needs."""
        return self._referenced("input")

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the secrets that it needs."""
        return self._referenced("secret")

    def _referenced(self, kind: str) -> frozenset[str]:
        return frozenset(
            match[3]
            for _, text, _ in self._texts()
            for match in PLACEHOLDER.finditer(text)
            if match[2] == kind
        )

    def _texts(self) -> Iterator[tuple[str, str, bool]]:
        """Every text with placeholders: where it stands, the text, whether a secret may stand in it."""
        for argument in self.argv:
            yield "argv", argument, False
        for name, text in self.environment.items():
            yield f"environment {name}", text, False
        for name, text in self.secret_environment.items():
            yield f"secret_environment {name}", text, True
        for name, file in self.files.items():
            yield f"file {name}", file.text, file.secret
        for command in self.setup:
            for argument in (*command.argv, command.creates or ""):
                yield f"setup {command.name}", argument, False

    def _check(self, place: str, text: str, *, may_be_secret: bool) -> None:
        for match in PLACEHOLDER.finditer(text):
            kind, name = match[2], match[3]
            known: Mapping[str, object] | None = {
                "port": self.ports,
                "address": self.ports,
                "self": self.ports,
                "volume": self.volumes,
                "file": self.files,
            }.get(kind)
            if known is not None:
                self._require(kind, name, known, place)
            if kind == "root":
                tools = self.program.tools if isinstance(self.program, Tool) else ()
                self._require(kind, name, dict.fromkeys(tools), place)
            if kind == "memory" and not name.isdigit():
                raise ServiceDefinitionError(
                    f"service {self.name}: {match[0]} in {place}: give a whole percentage"
                )
            if kind == "secret" and not may_be_secret:
                raise ServiceDefinitionError(
                    f"service {self.name}: {match[0]} stands in {place}, where others could read it: move it to "
                    "secret_environment or to a file with secret=True"
                )

    def _require(self, kind: str, name: str, known: Mapping[str, object], place: str) -> None:
        if name not in known:
            raise ServiceDefinitionError(
                f"service {self.name}: {place} refers to {kind} {name!r}; there is {_enumerate(tuple(known))}"
            )


def _enumerate(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
