"""TCP ports of this machine's loopback interface."""

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psutil

LOOPBACK = "127.0.0.1"
_STEP = 10
_FIRST_OUTGOING = 32_768
"""Linux's default, net.ipv4.ip_local_port_range; elsewhere it is higher."""


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now; also seen are servers that listen on all interfaces."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def next_free(usual: int, avoiding: frozenset[int] = frozenset()) -> int:
    """The first free port ten, twenty, … above `usual`, outside `avoiding`.

    It stays below the ports that the kernel gives to outgoing connections: one of those could hold a server's port
    just when the server restarts. Only if nothing is free there, any port is taken.
    """
    for port in range(usual + _STEP, _FIRST_OUTGOING, _STEP):
        if port not in avoiding and is_free(port):
            return port
    return any_free(avoiding)


def any_free(avoiding: frozenset[int] = frozenset()) -> int:
    """Return a free port outside `avoiding`."""
    with _held() as candidates:
        return next(port for port in candidates if port not in avoiding)


def holder(port: int) -> psutil.Process | None:
    """The process that listens on `port`, if this user may know."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS tells root only
        return None
    for connection in connections:
        local = connection.laddr
        if connection.status == psutil.CONN_LISTEN and local and local[1] == port and connection.pid:
            try:
                return psutil.Process(connection.pid)
            except psutil.NoSuchProcess:
                return None
    return None


def listens(port: int, processes: Iterable[psutil.Process]) -> bool | None:
    """Whether one of `processes`, or of what they started, listens on `port`; None where the system does not tell."""
    hidden = False
    for process in processes:
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for member in family:
            try:
                connections = member.net_connections(kind="tcp")
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied:
                hidden = True
                continue
            if any(each.status == psutil.CONN_LISTEN and each.laddr[1] == port for each in connections):
                return True
    return None if hidden else False


def description(process: psutil.Process | None) -> str:
    """Return how a message names the process on a port."""
    if process is None:
        return "a process that this user cannot see"
    try:
        return f"{process.name()} (process {process.pid})"
    except psutil.Error:
        return f"process {process.pid}"


@contextmanager
def _held() -> Iterator[Iterator[int]]:
    """Ports from the kernel, all different because each stays bound until the end."""
    probes: list[socket.socket] = []

    def draw() -> Iterator[int]:
        while True:
            probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            probes.append(probe)
            probe.bind((LOOPBACK, 0))
            yield int(probe.getsockname()[1])

    try:
        yield draw()
    finally:
        for probe in probes:
            probe.close()
