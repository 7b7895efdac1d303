import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from xmlrpc.client import dumps

import psutil
import pytest
from marketlake.cli import status
from marketlake.cli.exit_codes import ExitCode, UsageError
from marketlake.cli.host_target import HostTarget
from marketlake.cli.status import ServiceReport
from marketlake.settings import HealthKind, ServiceInfo

from tests.unit.marketlake.samples import settings


def service(**changes: Any) -> ServiceInfo:
    values: dict[str, Any] = {"name": "one", "version": "1.2", "health": HealthKind.PROCESS}
    return ServiceInfo(**(values | changes))


def report_of(one: ServiceInfo) -> ServiceReport:
    return status.report_of(one, HostTarget())


@contextmanager
def web_server(code: int) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/health?x=1"
        server.shutdown()


@contextmanager
def supervisor(path: Path, programs: list[dict[str, Any]]) -> Iterator[str]:
    """Answers getAllProcessInfo over a socket file, as supervisord does."""

    class Answer(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "local"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = dumps((programs,), methodresponse=True).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with socketserver.ThreadingUnixStreamServer(str(path), Answer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"supervisor:{path}"
        server.shutdown()


def program(name: str, pid: int, *, group: str | None = None, state: str = "RUNNING") -> dict[str, Any]:
    return {"name": name, "group": group or name, "pid": pid, "statename": state}


@pytest.mark.parametrize(
    ("code", "healthy", "state"), [(200, True, "healthy"), (302, True, "healthy"), (503, False, "HTTP 503")]
)
def test_a_web_service_is_healthy_below_400(code: int, healthy: bool, state: str) -> None:
    with web_server(code) as url:
        seen = report_of(service(health=HealthKind.HTTP, target=url, address=url))
    assert (seen.healthy, seen.state, seen.memory_bytes) == (healthy, state, None)


def test_a_web_service_that_does_not_answer_says_why() -> None:
    seen = report_of(service(health=HealthKind.HTTP, target="http://127.0.0.1:1/"))
    assert (seen.healthy, seen.state) == (False, "no answer: connection refused")


def test_a_port_is_healthy_when_it_takes_connections() -> None:
    with web_server(200) as url:
        target = url.removeprefix("http://").partition("/")[0]
        assert report_of(service(health=HealthKind.TCP, target=target)).healthy
    assert (
        report_of(service(health=HealthKind.TCP, target="127.0.0.1:1")).state
        == "no answer: connection refused"
    )
    assert not report_of(service(health=HealthKind.TCP, target="nonsense")).healthy


def test_memory_counts_a_programs_children_too(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        with supervisor(tmp_path / "s", [program("one", os.getpid()), program("other", 1)]) as control:
            seen = report_of(service(control=f"{control}#one"))
        own = psutil.Process().memory_info().rss
        assert seen.healthy
        assert seen.processes == 1
        assert seen.memory_bytes is not None
        assert seen.memory_bytes > own * 0.9 + 1_000_000
        assert seen.uptime_s is not None
    finally:
        child.kill()
        child.wait()


def test_all_processes_of_a_group_belong_to_the_service(tmp_path: Path) -> None:
    programs = [program(f"worker-{number}", os.getpid(), group="worker") for number in range(2)]
    with supervisor(tmp_path / "s", programs) as control:
        assert report_of(service(control=f"{control}#worker")).processes == 2


@pytest.mark.parametrize(
    ("programs", "state"),
    [
        ([program("one", 0, state="FATAL")], "fatal"),
        ([program("one", 0, state="STOPPED")], "stopped"),
        ([program("one", 2**22 - 1)], "restarting"),
        ([], "not running"),
    ],
)
def test_a_program_that_does_not_run_is_not_healthy(
    tmp_path: Path, programs: list[dict[str, Any]], state: str
) -> None:
    with supervisor(tmp_path / "s", programs) as control:
        seen = report_of(service(control=f"{control}#one"))
    assert (seen.healthy, seen.state) == (False, state)


def test_a_supervisor_that_is_gone_is_told(tmp_path: Path) -> None:
    seen = report_of(service(control=f"supervisor:{tmp_path}/none#one"))
    assert (seen.healthy, seen.state) == (False, "the supervisor does not answer: no such file or directory")


@pytest.fixture
def platform_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "platform.json"
    monkeypatch.setenv("MARKETLAKE_PLATFORM_FILE", str(path))
    return path


def test_the_exit_code_says_whether_all_some_or_none_are_well(
    platform_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    well, ill = service(name="well"), service(name="ill", health=HealthKind.TCP, target="127.0.0.1:1")
    for services, code in (
        ([well], ExitCode.COMPLETE),
        ([well, ill], ExitCode.INCOMPLETE),
        ([ill], ExitCode.UNREACHABLE),
    ):
        platform_file.write_text(settings(services=services).to_json())
        assert status.run(None, as_json=True) is code
        shown = json.loads(capsys.readouterr().out)
        assert [one["name"] for one in shown["services"]] == [one.name for one in services]
        assert shown["environment"] == "test"


def test_people_see_a_table_and_what_to_do(platform_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ill = service(name="ill", health=HealthKind.TCP, target="127.0.0.1:1", address="127.0.0.1:1")
    platform_file.write_text(settings(services=[service(name="well", console="http://c"), ill]).to_json())
    status.run(None, as_json=False)
    told = capsys.readouterr()
    assert "well" in told.out
    assert "http://c" in told.out
    assert "connection refused" in told.out
    assert "environment test: 1 of 2 services are well" in told.err
    assert "`make up` starts what was stopped" in told.err


def test_settings_without_services_are_told(platform_file: Path) -> None:
    platform_file.write_text(settings().to_json())
    with pytest.raises(UsageError, match="needs the platform file"):
        status.run(None, as_json=True)
