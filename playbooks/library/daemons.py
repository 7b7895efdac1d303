"""Ansible module: the daemons of a node under one supervisord, started and awaited, or ended.

A daemon is started anew when its command or a file that it reads has changed.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import resource
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from supervisor.xmlrpc import SupervisorTransport

MARK = "MARKETLAKE_CLUSTER"
"""In the environment of every daemon, so that one can be found that outlived its supervisor."""
SHIM = "containerd-shim"
_POLL_S = 0.1
_LAST_LINES = 12
_UP = 20
_HOPELESS = {100: "exited", 200: "fatal"}


class DaemonError(Exception):
    """A daemon is not ready; the message says which, and where to look."""


class Daemons:
    """One supervisord and its programs."""

    def __init__(self, run: Path, configuration: Path, logs: Path) -> None:
        self._socket = run / "supervisor.sock"
        self._pid_file = run / "supervisor.pid"
        self._configuration = configuration
        self._logs = logs
        self._run = run

    def ensure(self, programs: list[dict[str, Any]], *, awaited: list[str], timeout: float) -> list[str]:
        """Have all of them running, and the `awaited` ones ready.

        Returns:
            The programs that were started, anew or for the first time.

        Raises:
            DaemonError: one does not become ready.
        """
        for folder in (self._run, self._logs, self._configuration.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        wanted = self.text(programs)
        former = self._configuration.read_text() if self._configuration.exists() else ""
        if former != wanted:
            part = self._configuration.with_suffix(".part")
            part.write_text(wanted)
            part.chmod(0o600)
            part.replace(self._configuration)
        if self._answers():
            started = self._update()
        else:
            end_marked()
            self._start()
            started = [program["name"] for program in programs]
        deadline = time.monotonic() + timeout
        for program in programs:
            if program["name"] in awaited:
                started += self._await(program, deadline)
        return list(dict.fromkeys(started))

    def remove(self) -> bool:
        """Kill all of them at once: what they would save is removed as well.

        Returns:
            Whether there was anything to end.
        """
        if self._answers():
            os.kill(int(self._pid_file.read_text()), signal.SIGKILL)  # first, or it would start them again
        return end_marked(signal.SIGKILL)

    def text(self, programs: list[dict[str, Any]]) -> str:
        """The supervisor's configuration."""
        sections = [
            f"[unix_http_server]\nfile={self._socket}\nchmod=0600\n",
            (
                f"[supervisord]\nlogfile={self._logs / 'supervisor.log'}\nlogfile_maxbytes=1MB\nlogfile_backups=1\n"
                f"pidfile={self._pid_file}\nchildlogdir={self._logs}\nloglevel=info\nuser=root\numask=022\n"
                f'minfds={_files()}\ndirectory=/\nenvironment={MARK}="supervisor"\n'
            ),
            (
                "[rpcinterface:supervisor]\n"
                "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            ),
        ]
        return "\n".join([*sections, *(self._section(program) for program in programs)])

    def _section(self, program: dict[str, Any]) -> str:
        command = " ".join(shlex.quote(word) for word in program["command"]).replace("%", "%%")
        digest = digest_of(program["command"][0], program.get("reads", []))
        return (
            f"[program:{program['name']}]\ncommand={command}\npriority={program.get('priority', 999)}\n"
            f'environment={MARK}="{program["name"]}",MARKETLAKE_READS="{digest}",PATH="{os.environ["PATH"]}"\n'
            f"autorestart=true\nstartsecs=1\nstartretries=1000000\nstopwaitsecs=10\n"
            f"stdout_logfile={self._log(program['name'])}\nredirect_stderr=true\n"
            "stdout_logfile_maxbytes=10MB\nstdout_logfile_backups=1\n"
        )

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _start(self) -> None:
        self._socket.unlink(missing_ok=True)
        said = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(self._configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8"},
        )
        if said.returncode:
            raise DaemonError(f"the supervisor did not start: {said.stdout.strip()}")
        deadline = time.monotonic() + 15
        while not self._answers():
            if time.monotonic() > deadline:
                raise DaemonError(f"the supervisor does not answer on {self._socket}; see {self._logs}")
            time.sleep(_POLL_S)

    def _update(self) -> list[str]:
        """Make a running supervisor read its configuration; only what differs is touched."""
        server = self._server().supervisor
        added, changed, removed = server.reloadConfig()[0]
        for name in [*changed, *removed]:
            server.stopProcessGroup(name)
            server.removeProcessGroup(name)
        for name in [*added, *changed]:
            server.addProcessGroup(name)
        return [*added, *changed]

    def _await(self, program: dict[str, Any], deadline: float) -> list[str]:
        """Wait until it is ready; one that was stopped by hand is started."""
        name, started = program["name"], []
        while True:
            state = self._server().supervisor.getProcessInfo(name)
            if state["state"] == 0 or state["state"] in _HOPELESS:
                self._server().supervisor.startProcess(name, False)
                started = [name]
            problem = missing(program["ready"]) if state["state"] == _UP else f"it is {state['statename']}"
            if problem is None:
                return started
            if time.monotonic() > deadline:
                raise DaemonError(f"{name} is not ready: {problem}. {self._last_words(name)}")
            time.sleep(_POLL_S)

    def _last_words(self, name: str) -> str:
        log = self._log(name)
        lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:] if log.exists() else []
        return f"The end of {log}:\n" + "\n".join(f"  {line[:300]}" for line in lines)

    def _server(self) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    def _answers(self) -> bool:
        try:
            return bool(self._server().supervisor.getState()["statecode"] == 1)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False


def _files() -> int:
    """How many files a daemon may have open: what they like to have, or what this machine allows."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 65000 if allowed == resource.RLIM_INFINITY else min(65000, allowed - 1)


def digest_of(program: str, files: Iterable[str]) -> str:
    """Return a digest of the program and of the files' content."""
    digest = hashlib.sha256()
    if found := shutil.which(program):
        state = Path(found).stat()
        digest.update(f"{state.st_size} {state.st_mtime_ns}".encode())
    for file in files:
        digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.hexdigest()[:16]


def missing(ready: dict[str, Any]) -> str | None:
    """Return what is not ready: a UNIX socket that does not open, an address that does not answer ``ok``."""
    try:
        if path := ready.get("socket"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                probe.connect(path)
            return None
        return _answer_of(ready)
    except (OSError, http.client.HTTPException) as error:
        return f"{ready.get('socket') or ready.get('url')} does not answer ({error})"


def _answer_of(ready: dict[str, Any]) -> str | None:
    url = urlsplit(ready["url"])
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=ready["authority"])
        context.load_cert_chain(f"{ready['certificate']}.crt", f"{ready['certificate']}.key")
        connection = http.client.HTTPSConnection(str(url.hostname), url.port, timeout=2, context=context)
    else:
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=2)
    try:
        connection.request("GET", url.path)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    finally:
        connection.close()
    return None if answer.status == 200 else f"{ready['url']} says {answer.status}: {text.strip()[-300:]}"


def marked() -> list[int]:
    """Return the marked processes, without the shims, which keep pods running while containerd restarts."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            name = (entry / "comm").read_text()
        except OSError:
            continue
        is_marked = any(each.startswith(f"{MARK}=".encode()) for each in environment)
        if is_marked and not name.startswith(SHIM):
            found.append(int(entry.name))
    return found


def end_marked(*signals: signal.Signals, grace: float = 10.0) -> bool:
    """End every process that carries the mark; whether there was one."""
    processes = marked()
    for number in signals or (signal.SIGTERM, signal.SIGKILL):
        for process in marked():
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + grace
        while marked() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    return bool(processes)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        {
            "state": {"choices": ["present", "absent"], "default": "present"},
            "run": {"type": "path", "required": True},
            "configuration": {"type": "path", "required": True},
            "logs": {"type": "path", "required": True},
            "programs": {"type": "list", "elements": "dict", "default": []},
            "awaited": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 60.0},
        }
    )
    asked = module.params
    daemons = Daemons(Path(asked["run"]), Path(asked["configuration"]), Path(asked["logs"]))
    try:
        if asked["state"] == "absent":
            module.exit_json(changed=daemons.remove())
        started = daemons.ensure(asked["programs"], awaited=asked["awaited"], timeout=asked["timeout"])
    except (DaemonError, OSError, xmlrpc.client.Error) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(started), started=started)


if __name__ == "__main__":
    main()
