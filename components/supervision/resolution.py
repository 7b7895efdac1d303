"""From a Service to the program that this machine runs: the values of its placeholders."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from components.rendering import (
    PlaceholderValues,
    health_target,
    render_argv,
    render_environment,
    render_files,
    render_secret_environment,
    render_setup,
)
from components.service import Distribution, Service, Tool
from components.supervision.accounts import unprivileged
from components.supervision.layout import StackFolder
from components.supervision.program import HostProgram, SetupCommand
from components.supervision.sockets import LOOPBACK
from toolchain import locate


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The installed program of a service."""

    version: str
    executables: Mapping[str, Path]
    roots: Mapping[str, Path]
    copies: Mapping[Path, Path]
    """Tool trees to copy first: destination → source."""
    has_pages: bool = True
    """Whether it serves its web page for people."""


def installed(service: Service, stack: StackFolder) -> Installed:
    """Return the service's installed program.

    A program that drops root's rights runs from a copy in the stack's folder: the tool cache usually lies in root's
    home, which nobody else may enter.

    Raises:
        ToolMissingError: a tool is not installed.
    """
    if isinstance(service.program, Distribution):
        return _installed_distribution(service.program)
    return _installed_tool(
        service.program, stack, private=service.refuses_root and unprivileged() is not None
    )


def require_tools(service: Service) -> None:
    """Raise if a tool of the service's program is not installed.

    Raises:
        ToolMissingError: one is not; the message says how to install it.
    """
    if isinstance(service.program, Tool):
        for name in service.program.tools:
            locate(name)


def resolve(
    service: Service,
    folder: Path,
    *,
    ports: Mapping[str, int],
    inputs: Mapping[str, str],
    secrets: Mapping[str, str],
) -> HostProgram:
    """Place `service` on this machine, in the stack that lives in `folder`.

    Raises:
        ToolMissingError: a tool that it needs is not installed.
        UnresolvedError: an input, a secret or a port that it needs is not given.
    """
    stack = StackFolder(folder)
    program = installed(service, stack)
    resolved = PlaceholderValues(
        bind=LOOPBACK,
        ports=ports,
        addresses=addresses_of(ports),
        selves=addresses_of(ports),
        volumes={name: stack.volume(service.name, name) for name in service.volumes},
        files={name: stack.file(service.name, name) for name in service.files},
        executables=program.executables,
        roots=program.roots,
        logs=str(stack.logs / "*.log"),
        temporary=stack.temporary(service.name),
        inputs=inputs,
        secrets=secrets,
    )
    return HostProgram(
        folder=str(folder),
        name=service.name,
        argv=render_argv(service, resolved),
        environment=render_environment(service, resolved),
        secret_environment=render_secret_environment(service, resolved),
        files=render_files(service, resolved, secret=False),
        secret_files=render_files(service, resolved, secret=True),
        hidden=tuple(sorted(set(secrets.values()))),
        volumes={name: volume.size_mib for name, volume in service.volumes.items()},
        setup=tuple(
            SetupCommand(
                name=command.name,
                argv=command.argv,
                stdin=str(command.stdin or ""),
                creates=str(command.creates or ""),
                staged=command.staged,
            )
            for command in render_setup(service, resolved)
        ),
        tool_copies={str(target): str(source) for target, source in program.copies.items()},
        health=service.health.kind,
        health_target=health_target(service, resolved.addresses) or "",
        health_timeout_s=service.health.timeout_s,
        stop_signal=service.stop.signal,
        stop_grace_s=service.stop.grace_s,
        replicas=service.replicas,
        unprivileged=service.refuses_root,
    )


def addresses_of(ports: Mapping[str, int]) -> dict[str, str]:
    """Return ``host:port`` of each port: everything is on the loopback interface."""
    return {name: f"{LOOPBACK}:{port}" for name, port in ports.items()}


def _installed_distribution(program: Distribution) -> Installed:
    distribution = metadata.distribution(program.name)
    scripts = distribution.entry_points.select(group="console_scripts")
    return Installed(
        version=distribution.version,
        executables={script.name: Path(sys.prefix, "bin", script.name) for script in scripts},
        roots={},
        copies={},
    )


def _installed_tool(program: Tool, stack: StackFolder, *, private: bool) -> Installed:
    executables: dict[str, Path] = {}
    roots: dict[str, Path] = {}
    copies: dict[Path, Path] = {}
    for name in program.tools:
        tool = locate(name)
        inside = Path(tool.receipt.root)
        tree = Path(*tool.root.parts[: len(tool.root.parts) - len(inside.parts)])
        here = stack.tools / f"{name}-{tool.version}" if private else tree
        if private:
            copies[here] = tree
        roots[name] = here / inside
        executables |= {script: here / path.relative_to(tree) for script, path in tool.executables.items()}
    main = locate(program.name)
    return Installed(
        version=main.version,
        executables=executables,
        roots=roots,
        copies=copies,
        has_pages=not program.pages_need_release or main.receipt.source != "registry",
    )
