"""`marketlake status`: every service, its health, address, version and memory."""

import http.client
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from urllib.parse import urlsplit

from marketlake.cli.exit_codes import ExitCode, UsageError, say
from marketlake.cli.host_target import HostTarget
from marketlake.cli.output import print_json, print_table, size
from marketlake.cli.targets import ServiceStatus, Target
from marketlake.settings import HealthKind, ServiceInfo, Settings, platform_file

TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceReport:
    """What `marketlake status` reports of one service."""

    name: str
    healthy: bool
    state: str
    """What the health check or the supervisor said, in a few words."""
    version: str
    address: str | None
    console: str | None
    processes: int
    """Live processes that a supervisor started for it, whose children count as memory only, or ready pods."""
    memory_bytes: int | None
    """Resident memory of its processes and all their children, or what a cluster measured; None: not to be seen."""
    uptime_s: float | None
    """Seconds since its youngest process or container started."""
    restarts: int | None
    """How often Kubernetes started its containers anew; None elsewhere."""


def run(environment: str | None, *, as_json: bool) -> ExitCode:
    """Check all services at once and print the reports."""
    settings = Settings.load(environment)
    if not settings.services:
        raise UsageError(
            f"these settings name no services: `marketlake status` needs the platform file "
            f"{platform_file(settings.environment)}, which `pulumi up` writes."
        )
    target = target_of(settings)
    with ThreadPoolExecutor(len(settings.services)) as pool:
        seen = list(pool.map(partial(report_of, target=target), settings.services))
    if as_json:
        print_json({"environment": settings.environment, "services": [asdict(one) for one in seen]})
    else:
        _print(settings, target, seen)
    if all(one.healthy for one in seen):
        return ExitCode.COMPLETE
    return ExitCode.INCOMPLETE if any(one.healthy for one in seen) else ExitCode.UNREACHABLE


def target_of(settings: Settings) -> Target:
    """Return the target that an environment's services run on.

    Raises:
        PlatformUnreachableError: they run in a cluster that does not answer.
    """
    if settings.cluster is None:
        return HostTarget()
    from marketlake.cli.kubernetes_target import KubernetesTarget

    return KubernetesTarget.of(settings.cluster)


def report_of(service: ServiceInfo, target: Target) -> ServiceReport:
    """Return the report of a service, from its health check and from its target."""
    status = target.status(service.control) if service.control is not None else ServiceStatus()
    healthy, state = _health(service)
    if service.control is not None and (status.trouble or not status.running):
        healthy, state = False, status.trouble or "not running"
    return ServiceReport(
        name=service.name,
        healthy=healthy,
        state=state,
        version=service.version,
        address=service.address,
        console=service.console,
        processes=status.running,
        memory_bytes=status.memory_bytes,
        uptime_s=status.uptime_s,
        restarts=status.restarts,
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


def _print(settings: Settings, target: Target, seen: list[ServiceReport]) -> None:
    rows = [
        (
            one.name if one.processes < 2 else f"{one.name} ({one.processes})",
            f"{one.state}, {one.restarts} restarts" if one.restarts else one.state,
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
        say(target.hint)
