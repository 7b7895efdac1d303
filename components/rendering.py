"""From a Service and the values of its placeholders to its command line, variables and files. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from marketlake.settings import HealthKind

from components.service import PLACEHOLDER, Service


class UnresolvedError(LookupError):
    """A placeholder has no value: neither the target nor the component provides one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceholderValues:
    """The values of one service's placeholders; each mapping is by the name in the placeholder."""

    bind: str
    ports: Mapping[str, int]
    addresses: Mapping[str, str]
    """``host:port`` of each port, for others."""
    selves: Mapping[str, str]
    """``host:port`` of each port, for the service itself."""
    volumes: Mapping[str, Path]
    files: Mapping[str, Path]
    executables: Mapping[str, Path]
    roots: Mapping[str, Path]
    logs: str
    temporary: Path
    inputs: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedCommand:
    """A :class:`~components.service.Command` with its placeholders filled in."""

    name: str
    argv: tuple[str, ...]
    stdin: Path | None
    creates: Path | None
    staged: bool


def render_argv(service: Service, resolved: PlaceholderValues) -> tuple[str, ...]:
    """Return the command line; there is no secret in it."""
    return tuple(fill(text, service, resolved) for text in service.argv)


def render_environment(service: Service, resolved: PlaceholderValues) -> dict[str, str]:
    """Return the environment variables without secrets."""
    return {name: fill(text, service, resolved) for name, text in service.environment.items()}


def render_secret_environment(service: Service, resolved: PlaceholderValues) -> dict[str, str]:
    """Return the environment variables that are secrets."""
    return {name: fill(text, service, resolved) for name, text in service.secret_environment.items()}


def render_files(service: Service, resolved: PlaceholderValues, *, secret: bool) -> dict[str, str]:
    """Return the texts of the files, by name: either the secret ones or the others."""
    return {
        name: fill(file.text, service, resolved)
        for name, file in service.files.items()
        if file.secret is secret
    }


def render_setup(service: Service, resolved: PlaceholderValues) -> tuple[RenderedCommand, ...]:
    """Return the commands to run before the program."""
    return tuple(
        RenderedCommand(
            name=command.name,
            argv=tuple(fill(text, service, resolved) for text in command.argv),
            stdin=resolved.files[command.stdin] if command.stdin else None,
            creates=Path(fill(command.creates, service, resolved)) if command.creates else None,
            staged=command.staged,
        )
        for command in service.setup
    )


def health_target(service: Service, addresses: Mapping[str, str]) -> str | None:
    """Return what a health check asks: a URL, ``host:port``, or None where only the process can be checked."""
    health = service.health
    if health.port is None:
        return None
    address = addresses[health.port]
    return f"http://{address}{health.path}" if health.kind is HealthKind.HTTP else address


def main_address(service: Service, addresses: Mapping[str, str]) -> str | None:
    """Return the address of the first port, with its scheme if it is HTTP; None for a service without ports."""
    for name, port in service.ports.items():
        return f"http://{addresses[name]}" if port.scheme == "http" else addresses[name]
    return None


def console_address(service: Service, addresses: Mapping[str, str]) -> str | None:
    """Return the URL of the service's web page."""
    if service.console is None:
        return None
    port, path = service.console
    return f"http://{addresses[port]}{path}"


def fill(text: str, service: Service, resolved: PlaceholderValues) -> str:
    """Return `text` with every placeholder replaced.

    Raises:
        UnresolvedError: the values do not hold one of them.
    """
    known: dict[str, Mapping[str, object]] = {
        "port": resolved.ports,
        "address": resolved.addresses,
        "self": resolved.selves,
        "volume": resolved.volumes,
        "file": resolved.files,
        "bin": resolved.executables,
        "root": resolved.roots,
        "input": resolved.inputs,
        "secret": resolved.secrets,
    }
    words = {"bind": resolved.bind, "logs": resolved.logs, "temporary": str(resolved.temporary)}
    pieces: list[str] = []
    end = 0
    for match in PLACEHOLDER.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        word, kind, name = match.groups()
        if word:
            pieces.append(words[word])
        elif kind == "memory":
            pieces.append(str(service.resources.memory_mib * int(name) // 100))
        elif name in known[kind]:
            pieces.append(str(known[kind][name]))
        else:
            raise UnresolvedError(
                f"service {service.name} needs {kind} {name!r}; known: {', '.join(sorted(known[kind])) or 'none'}"
            )
    return "".join([*pieces, text[end:]])
