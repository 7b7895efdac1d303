"""`marketlake status`: every service, its health, address, version and memory."""

import http.client
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit
from xmlrpc.client import Fault, ProtocolError, ServerProxy, Transport

import psutil

from marketlake.cli.outcome import ExitCode, UsageProblem, say
from marketlake.cli.output import print_json, print_table, size
from marketlake.settings import HealthKind, ServiceInfo, Settings, platform_file

TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """What was seen of one service."""

    name: str
    healthy: bool
    state: str
    """What the health check or the supervisor said, in a few words."""
    version: str
    address: str | None
    console: str | None
    processes: int
    """Live processes that the supervisor started for it; their children count as memory only."""
    memory_bytes: int | None
    """Resident memory of its processes and all their children; None where it cannot be seen."""
    uptime_s: float | None
    """Seconds since its youngest process started."""


def run(environment: str | None, *, as_json: bool) -> ExitCode:
    """Look at all services at once and print what was seen."""
    settings = Settings.load(environment)
    if not settings.services:
        raise UsageProblem(
            f"these settings name no services: `marketlake status` needs the platform file "
            f"{platform_file(settings.environment)}, which `pulumi up` writes."
        )
    with ThreadPoolExecutor(len(settings.services)) as pool:
        seen = list(pool.map(look_at, settings.services))
    if as_json:
        print_json({"environment": settings.environment, "services": [asdict(one) for one in seen]})
    else:
        _print(settings, seen)
    if all(one.healthy for one in seen):
        return ExitCode.COMPLETE
    return ExitCode.INCOMPLETE if any(one.healthy for one in seen) else ExitCode.UNREACHABLE


def look_at(service: ServiceInfo) -> ServiceStatus:
    """Ask a service's health check and its supervisor."""
    processes, trouble = _processes(service.control)
    healthy, state = _health(service)
    if service.control is not None and (trouble or not processes):
        healthy, state = False, trouble or "not running"
    members = [member for process in processes for member in _family(process)]
    return ServiceStatus(
        name=service.name,
        healthy=healthy,
        state=state,
        version=service.version,
        address=service.address,
        console=service.console,
        processes=len(processes),
        memory_bytes=sum(map(_resident, members)) if processes else None,
        uptime_s=min((round(_age(process), 1) for process in processes), default=None),
    )


def _health(service: ServiceInfo) -> tuple[bool, str]:
    match service.health:
        case HealthKind.HTTP:
            return _answers_http(service.target or "")
        case HealthKind.TCP:
            return _accepts(service.target or "")
        case HealthKind.PROCESS:
            return True, "running"


def _answers_http(url: str) -> tuple[bool, str]:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts._replace(scheme="", netloc="").geturl() or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer: {_reason(error)}"
    finally:
        connection.close()
    return (True, "healthy") if status < 400 else (False, f"HTTP {status}")


def _accepts(target: str) -> tuple[bool, str]:
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S):
            return True, "healthy"
    except (OSError, ValueError) as error:
        return False, f"no answer: {_reason(error)}"


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _processes(control: str | None) -> tuple[list[psutil.Process], str | None]:
    """Live processes of a program or group, and what the supervisor says about those that do not run."""
    if control is None:
        return [], None
    path, _, name = control.removeprefix("supervisor:").partition("#")
    try:
        with ServerProxy("http://supervisor", transport=_UnixTransport(path)) as supervisor:
            known: Any = supervisor.supervisor.getAllProcessInfo()
    except (OSError, http.client.HTTPException, Fault, ProtocolError) as error:
        return [], f"the supervisor does not answer: {_reason(error)}"
    mine = [program for program in known if name in {program["name"], program["group"]}]
    live = [program for program in mine if program["statename"] == "RUNNING" and program["pid"]]
    faults = sorted({program["statename"].lower() for program in mine if program not in live})
    found: list[psutil.Process] = []
    for program in live:
        try:
            found.append(psutil.Process(program["pid"]))
        except psutil.NoSuchProcess:
            faults.append("restarting")
    return found, ", ".join(faults) or None


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def _age(process: psutil.Process) -> float:
    try:
        return max(0.0, time.time() - process.create_time())
    except psutil.NoSuchProcess:
        return 0.0


def _print(settings: Settings, seen: list[ServiceStatus]) -> None:
    rows = [
        (
            one.name if one.processes < 2 else f"{one.name} ({one.processes})",
            one.state,
            one.console or one.address,
            one.version,
            size(one.memory_bytes) if one.memory_bytes is not None else "",
        )
        for one in seen
    ]
    print_table(("service", "health", "address", "version", "memory"), rows, right=("memory",))
    total = sum(one.memory_bytes or 0 for one in seen)
    well = sum(one.healthy for one in seen)
    say(
        f"environment {settings.environment}: {well} of {len(seen)} services are well, {size(total)} resident"
    )
    if well < len(seen):
        say("`make up` starts what was stopped; the logs lie in the environment's data folder")


class _UnixTransport(Transport):
    """XML-RPC over a socket file, as supervisor serves it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - the base's signature
        """A connection to the socket file, whatever the host."""
        return _UnixConnection(self._path)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)
