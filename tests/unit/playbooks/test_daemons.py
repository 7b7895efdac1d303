"""Daemons under a supervisor: started once, anew when something changed, ended with all that is theirs."""

import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from playbooks.library import certificates, daemons
from playbooks.library.daemons import DaemonError, Daemons, digest_of, end_marked, marked, missing
from tests.waiting import eventually

LISTENING = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
path = sys.argv[1]
os.path.exists(path) and os.unlink(path)
server.bind(path)
server.listen()
print("listening", flush=True)
while True:
    server.accept()
"""


class Some:
    """A supervisor of our own, with a mark that no real node's daemons carry."""

    def __init__(self, folder: Path) -> None:
        self.run, self.logs = folder / "run", folder / "logs"
        self.configuration = folder / "etc" / "supervisor.conf"
        self.daemons = Daemons(self.run, self.configuration, self.logs)
        self._folder = folder
        (folder / "listen.py").write_text(LISTENING)

    def program(self, name: str, *, reads: str = "one", priority: int = 10) -> dict[str, object]:
        """One that reads a file with this content, and opens a socket when it is ready."""
        file = self._folder / f"{name}.yaml"
        file.write_text(reads)
        place = str(self.run / f"{name}.sock")
        return {
            "name": name,
            "priority": priority,
            "command": [sys.executable, str(self._folder / "listen.py"), place],
            "reads": [str(file)],
            "ready": {"socket": place},
        }

    def ensure(self, *programs: dict[str, object], timeout: float = 20) -> list[str]:
        names = [str(program["name"]) for program in programs]
        return self.daemons.ensure(list(programs), awaited=names, timeout=timeout)

    def processes(self) -> dict[str, int]:
        server = self.daemons._server().supervisor
        return {each["name"]: each["pid"] for each in server.getAllProcessInfo()}


@pytest.fixture
def some(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(daemons, "MARK", f"MARKETLAKE_TEST_{os.getpid()}")
    found = Some(tmp_path_factory.mktemp("d"))
    yield found
    found.daemons.remove()


def test_daemons_start_in_order_and_a_second_run_starts_none(some) -> None:
    first, second = some.program("first"), some.program("second", priority=20)
    assert some.ensure(first, second) == ["first", "second"]
    before = some.processes()
    assert some.ensure(first, second) == []
    assert some.processes() == before


def test_a_changed_file_starts_its_reader_anew_and_no_other(some) -> None:
    some.ensure(some.program("first"), some.program("second"))
    before = some.processes()
    assert some.ensure(some.program("first"), some.program("second", reads="two")) == ["second"]
    after = some.processes()
    assert after["first"] == before["first"]
    assert after["second"] != before["second"]


def test_a_daemon_that_is_no_longer_wanted_ends(some) -> None:
    some.ensure(some.program("first"), some.program("second"))
    ended = some.processes()["second"]
    assert some.ensure(some.program("first")) == []
    eventually(lambda: not psutil.pid_exists(ended))
    assert set(some.processes()) == {"first"}


def test_a_daemon_that_was_stopped_by_hand_is_started(some) -> None:
    program = some.program("first")
    some.ensure(program)
    some.daemons._server().supervisor.stopProcess("first")
    assert some.ensure(program) == ["first"]


def test_daemons_that_outlived_their_supervisor_make_room_for_new_ones(some) -> None:
    program = some.program("first")
    some.ensure(program)
    orphan = some.processes()["first"]
    os.kill(int((some.run / "supervisor.pid").read_text()), signal.SIGKILL)
    assert some.ensure(program) == ["first"]
    assert not psutil.pid_exists(orphan) or _is_zombie(orphan)
    assert some.processes()["first"] != orphan


def test_all_of_them_end_at_once(some) -> None:
    some.ensure(some.program("first"), some.program("second"))
    ended = some.processes().values()
    assert some.daemons.remove() is True
    assert not [process for process in ended if psutil.pid_exists(process) and not _is_zombie(process)]
    assert some.daemons.remove() is False


def test_a_daemon_that_does_not_become_ready_is_told_with_its_last_words(some) -> None:
    program = some.program("first")
    program["command"] = [
        sys.executable,
        "-c",
        "import time; print('no room on the disk', flush=True); time.sleep(60)",
    ]
    with pytest.raises(DaemonError, match=r"(?s)first is not ready: .*does not answer.*no room on the disk"):
        some.ensure(program, timeout=3)


def test_a_daemon_that_ends_again_and_again_is_told(some) -> None:
    program = some.program("first")
    program["command"] = [sys.executable, "-c", "print('bad flag', flush=True); raise SystemExit(2)"]
    with pytest.raises(DaemonError, match=r"(?s)first is not ready: it is .*bad flag"):
        some.ensure(program, timeout=3)


def test_a_supervisor_that_does_not_start_is_told(some) -> None:
    some.configuration.parent.mkdir(parents=True)
    some.configuration.write_text("[supervisord]\nloglevel=nonsense\n")
    with pytest.raises(DaemonError, match="the supervisor did not start"):
        some.daemons._start()


def test_the_configuration_is_roots_alone_and_says_what_a_daemon_reads(some) -> None:
    some.ensure(some.program("first"))
    assert some.configuration.stat().st_mode & 0o777 == 0o600
    assert f"chmod=0600\n\n[supervisord]\nlogfile={some.logs}" in some.configuration.read_text()
    assert (some.run / "supervisor.sock").stat().st_mode & 0o777 == 0o600


def test_a_percent_sign_of_a_command_is_no_expression_of_the_supervisors(tmp_path) -> None:
    text = Daemons(tmp_path, tmp_path / "c", tmp_path).text([{"name": "a", "command": ["date", "+%Y of it"]}])
    assert "command=date '+%%Y of it'\n" in text


def test_the_digest_follows_the_program_and_the_content(tmp_path) -> None:
    program, file = tmp_path / "program", tmp_path / "file"
    program.write_text("#!/bin/sh")
    program.chmod(0o755)
    file.write_text("one")
    first = digest_of(str(program), [str(file)])
    assert first == digest_of(str(program), [str(file)])
    file.write_text("two")
    second = digest_of(str(program), [str(file)])
    program.write_text("#!/bin/sh\n:")
    assert len({first, second, digest_of(str(program), [str(file)])}) == 3


def test_ansible_is_told_what_started_and_that_all_ended(some, ask) -> None:
    asked = {
        "run": str(some.run),
        "configuration": str(some.configuration),
        "logs": str(some.logs),
        "programs": [some.program("first")],
        "awaited": ["first"],
    }
    assert ask(daemons, **asked)["started"] == ["first"]
    assert ask(daemons, **asked)["changed"] is False
    absent = {**asked, "state": "absent", "programs": []}
    assert ask(daemons, **absent)["changed"] is True
    assert ask(daemons, **absent)["changed"] is False


def test_and_what_does_not_start(some, ask) -> None:
    program = some.program("first")
    program["reads"] = [str(some.run / "missing.yaml")]
    told = ask(
        daemons,
        run=str(some.run),
        configuration=str(some.configuration),
        logs=str(some.logs),
        programs=[program],
    )
    assert told["failed"] is True
    assert "missing.yaml" in told["msg"]


def test_shims_keep_pods_running_while_containerd_starts_anew(monkeypatch) -> None:
    mark = f"MARKETLAKE_TEST_{os.getpid()}"
    monkeypatch.setattr(daemons, "MARK", mark)
    named = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'{}'); print('', flush=True); time.sleep(60)"
    with (
        subprocess.Popen(
            [sys.executable, "-c", named.format("containerd-shim")],
            env={**os.environ, mark: "containerd"},
            stdout=subprocess.PIPE,
        ) as shim,
        subprocess.Popen(
            [sys.executable, "-c", named.format("containerd")],
            env={**os.environ, mark: "containerd"},
            stdout=subprocess.PIPE,
        ) as other,
    ):
        for process in (shim, other):
            assert process.stdout is not None
            process.stdout.readline()
        assert marked() == [other.pid]
        threading.Thread(target=other.wait).start()  # or it stays a zombie, which still carries the mark
        assert end_marked() is True
        assert shim.poll() is None
        shim.kill()


class Health(BaseHTTPRequestHandler):
    """``/ok`` is well; anything else is not."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ok" else 503)
        self.end_headers()
        self.wfile.write(b"etcd is not reached")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def served(tmp_path):
    """Ports of two servers, plain and with certificates; the second lets in only those whom it knows."""
    certificates.ensure(
        tmp_path,
        authorities=[{"name": "ca", "common_name": "ca"}],
        certificates=[
            {
                "name": "server",
                "authority": "ca",
                "common_name": "server",
                "usages": ["server"],
                "addresses": ["127.0.0.1"],
            },
            {"name": "admin", "authority": "ca", "common_name": "admin", "usages": ["client"]},
        ],
        signing_keys=[],
        kubeconfigs={},
    )
    context = daemons.ssl.create_default_context(
        daemons.ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt")
    )
    context.verify_mode = daemons.ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Health) for _ in range(2)]
    servers[1].socket = context.wrap_socket(servers[1].socket, server_side=True)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [server.server_port for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_address_is_ready_when_it_says_so(served) -> None:
    plain, _ = served
    assert missing({"url": f"http://127.0.0.1:{plain}/ok"}) is None
    told = missing({"url": f"http://127.0.0.1:{plain}/readyz"})
    assert told == f"http://127.0.0.1:{plain}/readyz says 503: etcd is not reached"


def test_a_daemon_is_asked_by_certificate_and_must_show_its_own(served, tmp_path) -> None:
    _, secure = served
    asked = {
        "url": f"https://127.0.0.1:{secure}/ok",
        "authority": str(tmp_path / "ca.crt"),
        "certificate": str(tmp_path / "admin"),
    }
    assert missing(asked) is None
    certificates.ensure(
        tmp_path / "foreign",
        authorities=[{"name": "ca", "common_name": "ca"}],
        certificates=[],
        signing_keys=[],
        kubeconfigs={},
    )
    foreign = missing(asked | {"authority": str(tmp_path / "foreign" / "ca.crt")})
    assert foreign is not None
    assert "certificate verify failed" in foreign


def test_nobody_at_an_address_is_not_ready(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "does not answer" in str(missing({"url": f"http://127.0.0.1:{port}/ok"}))
    assert "does not answer" in str(missing({"socket": str(tmp_path / "none.sock")}))


def _is_zombie(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
