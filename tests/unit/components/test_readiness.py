"""Waiting for a service, and what is said when waiting is in vain."""

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from marketlake.settings import HealthKind

from components.supervision.readiness import NotReadyError, answers, await_ready, last_lines, quoted
from components.supervision.sockets import any_free, holder, is_free


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("status", "ready"), [(200, True), (204, True), (404, False), (503, False)])
def test_http_counts_below_400(address: str, status: int, ready: bool) -> None:
    assert answers(HealthKind.HTTP, f"http://{address}/{status}") is ready


def test_a_proxy_of_the_environment_is_not_asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert answers(HealthKind.HTTP, f"http://{address}/200")


def test_tcp_counts_a_connection(address: str) -> None:
    assert answers(HealthKind.TCP, address)
    free = any_free()
    assert not answers(HealthKind.TCP, f"127.0.0.1:{free}")
    assert not answers(HealthKind.HTTP, f"http://127.0.0.1:{free}/")


def test_where_nothing_can_be_asked_it_is_ready() -> None:
    assert answers(HealthKind.PROCESS, "")


def test_waiting_ends_when_it_answers() -> None:
    tries = iter([False, False, True])
    await_ready(lambda: next(tries), lambda: None, timeout_s=5, subject="web")


def test_waiting_ends_when_there_is_no_hope() -> None:
    with pytest.raises(NotReadyError, match=r"^web did not start: it crashed\.$"):
        await_ready(lambda: False, lambda: "it crashed", timeout_s=60, subject="web")


def test_waiting_ends_when_time_is_up() -> None:
    with pytest.raises(NotReadyError, match=r"did not answer within 0\.2 s"):
        await_ready(lambda: False, lambda: None, timeout_s=0.2, subject="web")


def test_a_quoted_log_is_short_and_without_secrets(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text("".join(f"line {number} of hunter2-and-more and hunter2\n" for number in range(100)))
    text = last_lines(log, hiding=["hunter2", "hunter2-and-more", ""])
    assert text.splitlines()[-1] == "    line 99 of [secret] and [secret]"
    assert len(text.splitlines()) == 12


def test_no_log_and_an_empty_one_are_told_alike(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none.log") == quoted("") == "    (nothing)"


def test_a_port_that_somebody_listens_on_is_not_free_and_has_a_holder() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
        process = holder(port)
        assert process is not None
        assert process.pid == os.getpid()
    assert is_free(port)
    assert holder(port) is None


def test_a_free_port_avoids_those_that_are_spoken_for() -> None:
    first = any_free()
    assert any_free(frozenset({first})) != first


def test_whoever_may_not_look_learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refused)
    assert holder(1) is None


def test_a_holder_that_ended_meanwhile_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = SimpleNamespace(status=psutil.CONN_LISTEN, laddr=("127.0.0.1", 1), pid=2**30)
    monkeypatch.setattr(psutil, "net_connections", lambda **_: [ended])
    assert holder(1) is None
