"""The node's daemons, as the playbooks run them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from playbooks.node import RUN

SOCKET = RUN / "supervisor.sock"


def restart_daemons(names: Sequence[str]) -> None:
    """Stop and start daemons of the node, the named ones or all."""
    proxy = _supervisor()
    known = [program["name"] for program in proxy.getAllProcessInfo()]
    chosen = list(names) or known
    assert set(chosen) <= set(known), f"the node runs {known}"
    for name in reversed(chosen):
        proxy.stopProcess(name)
    for name in chosen:
        proxy.startProcess(name)


@contextmanager
def stopped_daemon(name: str) -> Iterator[None]:
    """The node without one of its daemons."""
    proxy = _supervisor()
    proxy.stopProcess(name)
    try:
        yield
    finally:
        proxy.startProcess(name)


def _supervisor() -> Any:
    transport = SupervisorTransport(None, None, serverurl=f"unix://{SOCKET}")
    return ServerProxy("http://127.0.0.1", transport=transport).supervisor
