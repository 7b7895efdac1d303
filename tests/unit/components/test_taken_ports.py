"""A stranger on a service's port is never taken for the service."""

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from marketlake.settings import HealthKind

from components.providers import ports, process
from components.providers.base import ResourceError
from components.providers.ports import PortsInputs, PortsProvider
from components.providers.process import ProcessInputs, ProcessProvider
from components.providers.supervisor import SupervisorInputs, SupervisorProvider
from components.supervision.program import HostProgram
from components.supervision.sockets import LOOPBACK, any_free, description, is_free, listens, next_free
from tests.unit.components.conftest import SERVER

Make = Callable[..., HostProgram]

SICK = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_error(503)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
IDLE = ("/bin/sleep", "600")
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SERVER!r}, sys.argv[1]])"


@pytest.fixture(autouse=True)
def supervised(folder: Path) -> None:
    SupervisorProvider().apply(SupervisorInputs(version="1", folder=str(folder)))


@pytest.fixture
def stranger() -> Iterator[int]:
    """Port of a healthy web server that is of no stack."""
    with psutil.Popen([sys.executable, "-c", SERVER, "0"]) as web:
        try:
            yield _port_of(web)
        finally:
            web.kill()


def _port_of(web: psutil.Popen) -> int:
    while True:
        for connection in web.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                return int(connection.laddr[1])


def inputs(program: HostProgram) -> ProcessInputs:
    return ProcessInputs.model_validate({**program.model_dump(), "version": "1"})


def address(kind: HealthKind, port: int) -> dict[str, Any]:
    target = f"{LOOPBACK}:{port}"
    return {
        "health": kind,
        "health_target": f"http://{target}/" if kind is HealthKind.HTTP else target,
        "health_timeout_s": 10,
    }


@pytest.mark.parametrize("kind", [HealthKind.HTTP, HealthKind.TCP])
@pytest.mark.parametrize("waits", [True, False], ids=["one that waits", "one that ends"])
def test_a_service_whose_port_was_taken_is_not_ready(
    program: Make, stranger: int, kind: HealthKind, waits: bool
) -> None:
    fields = address(kind, stranger) | ({"argv": IDLE} if waits else {})
    with pytest.raises(ResourceError) as caught:
        ProcessProvider().apply(inputs(program(port=stranger, **fields)))
    assert f"web did not start: its port {stranger} was taken meanwhile by python" in str(caught.value)
    assert "`pulumi up --refresh` gives it another one" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_next_refresh_gives_up_the_port_and_the_service_starts_on_another(
    program: Make, folder: Path, stranger: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "ports.json").write_text(f'{{"web": {{"api": {stranger}}}}}')
    declared = PortsInputs(version="1", folder=str(folder), service="web", preferred={"api": stranger})
    with pytest.raises(ResourceError, match="was taken meanwhile"):
        ProcessProvider().apply(inputs(program(port=stranger)))

    assert PortsProvider().observe(declared) is None
    number = PortsProvider().apply(declared)["numbers"]["api"]
    assert number != stranger
    web = inputs(program(port=number))
    ProcessProvider().apply(web)
    assert ProcessProvider().observe(web) == {}


def test_a_child_that_listens_for_the_service_counts(program: Make, folder: Path) -> None:
    web = program()
    port = web.health_target.rstrip("/").rpartition(":")[2]
    ProcessProvider().apply(inputs(program(port=int(port), argv=(sys.executable, "-c", PARENT, port))))


def test_a_service_that_is_sick_on_its_own_port_is_no_stranger(program: Make) -> None:
    port = any_free()
    fields = {**address(HealthKind.HTTP, port), "health_timeout_s": 2}
    with pytest.raises(ResourceError, match=r"it did not answer within 2 s"):
        ProcessProvider().apply(
            inputs(program(port=port, argv=(sys.executable, "-c", SICK, str(port)), **fields))
        )


def test_where_the_system_does_not_tell_the_answer_decides(
    program: Make, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: psutil.Process, kind: str) -> None:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "net_connections", refuse)
    ProcessProvider().apply(inputs(program(argv=IDLE, **address(HealthKind.HTTP, stranger))))


def test_a_stranger_that_cannot_be_seen_is_told_as_such(
    program: Make, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "holder", lambda _: None)
    with pytest.raises(ResourceError, match="by a process that this user cannot see"):
        ProcessProvider().apply(inputs(program(argv=IDLE, **address(HealthKind.TCP, stranger))))


def test_a_process_listens_on_its_own_ports_and_not_on_others() -> None:
    me = psutil.Process()
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert listens(port, [me]) is True
        assert listens(port, []) is False
    assert listens(port, [me]) is False


def test_a_stranger_that_ends_while_it_is_looked_at_is_a_stranger(
    folder: Path, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = psutil.Popen(["/bin/sleep", "0"])
    gone.wait()
    monkeypatch.setattr(ports, "holder", lambda _: gone)
    (folder / "ports.json").write_text(f'{{"web": {{"api": {stranger}}}}}')
    declared = PortsInputs(version="1", folder=str(folder), service="web", preferred={"api": stranger})
    assert PortsProvider().observe(declared) is None


def test_another_port_lies_near_the_usual_one_and_below_those_of_outgoing_connections() -> None:
    port = next_free(24_000, frozenset({24_010}))
    assert port in range(24_020, 32_768, 10)
    assert is_free(port)
    assert next_free(32_767) > 0, "where none is left, the kernel gives one"


def test_a_process_that_ends_while_it_is_looked_at_listens_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: psutil.Process, kind: str) -> None:
        raise psutil.NoSuchProcess(self.pid)

    monkeypatch.setattr(psutil.Process, "net_connections", gone)
    assert listens(80, [psutil.Process()]) is False


def test_a_process_that_ended_listens_nowhere() -> None:
    gone = psutil.Popen(["/bin/sleep", "0"])
    gone.wait()
    assert listens(80, [gone]) is False
    assert str(gone.pid) in description(gone)
