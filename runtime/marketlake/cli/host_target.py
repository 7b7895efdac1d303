"""Services under supervisor on this machine."""

import http.client
import socket
import time
from typing import Any
from xmlrpc.client import Fault, ProtocolError, ServerProxy, Transport

import psutil

from marketlake.cli.targets import ServiceStatus

TIMEOUT_S = 3.0


class HostTarget:
    """Programs and groups of a supervisor; see :class:`marketlake.cli.targets.Target`."""

    hint = "`make up` starts what was stopped; the logs lie in the environment's data folder"

    def status(self, control: str) -> ServiceStatus:
        """Return the status of the processes of `supervisor:<socket path>#<program or group>`."""
        processes, trouble = _processes(control)
        members = [member for process in processes for member in _family(process)]
        return ServiceStatus(
            running=len(processes),
            trouble=trouble,
            memory_bytes=sum(map(_resident, members)) if processes else None,
            uptime_s=min((round(_age(process), 1) for process in processes), default=None),
        )


def _processes(control: str) -> tuple[list[psutil.Process], str | None]:
    """Return the live processes of a program or group, and what the supervisor says about those that do not run."""
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


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


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
