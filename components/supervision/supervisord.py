"""One supervisor per stack: it restarts what crashes, rotates logs, and answers on a UNIX socket of its owner."""

import http.client
import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.xmlrpc import Faults, SupervisorTransport

from components.supervision.accounts import Account
from components.supervision.files import write_private
from components.supervision.installation import inherited_environment, prepare_stack_folder
from components.supervision.layout import STACK_MARK, StackFolder
from components.supervision.orphans import end, processes_of
from components.supervision.program import HostProgram
from components.supervision.readiness import last_lines, quoted

LONGEST_SOCKET_PATH = 100
"""Bytes; Linux takes 107, macOS 103, and the supervisor first binds a name with its process number behind it."""
_START_S = 15.0
_RUNNING = frozenset({ProcessStates.STARTING, ProcessStates.RUNNING})
_HOPELESS = frozenset({ProcessStates.FATAL, ProcessStates.EXITED, ProcessStates.UNKNOWN})

Answer = TypeVar("Answer")


class SupervisorError(Exception):
    """The supervisor fails; the message says what to do."""


class Supervisor:
    """The supervisor of one stack."""

    def __init__(self, stack: StackFolder) -> None:
        self._stack = stack
        self._configuration = stack.supervisor / "supervisord.conf"

    def configuration(self) -> str:
        """Text of its configuration file."""
        folder = self._stack.supervisor
        return (
            f"[unix_http_server]\nfile={_literal(self._stack.socket)}\nchmod=0600\n\n"
            f"[supervisord]\nlogfile={_literal(folder / 'supervisord.log')}\n"
            "logfile_maxbytes=1MB\nlogfile_backups=1\nloglevel=warn\n"
            f"pidfile={_literal(folder / 'supervisord.pid')}\nchilddatalogdir={_literal(folder)}\n"
            "umask=077\nminfds=1024\n" + ("user=0\n" if os.geteuid() == 0 else "") + "\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\n"
            f"[include]\nfiles={_literal(self._stack.programs)}/*.conf\n"
        )

    def start(self) -> None:
        """Start the supervisor: adopt a live one, or end what a dead one left behind and start a new one.

        Raises:
            SupervisorError: it does not come up.
        """
        length = len(bytes(self._stack.socket))
        if length > LONGEST_SOCKET_PATH:
            raise SupervisorError(
                f"the path of the supervisor's socket, {self._stack.socket}, has {length} bytes; a UNIX socket takes "
                f"{LONGEST_SOCKET_PATH}. Name a shorter place with MARKETLAKE_HOME."
            )
        prepare_stack_folder(self._stack)
        changed = write_private(self._configuration, self.configuration())
        if self.is_running() and not changed:
            return
        self.stop()
        self._stack.socket.unlink(missing_ok=True)
        started = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(self._configuration)],
            env=inherited_environment() | {STACK_MARK: str(self._stack.root)},
            cwd=self._stack.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            umask=0o077,
        )
        if started.returncode:
            raise SupervisorError(
                f"the supervisor of {self._stack.root} did not start: it ended with status {started.returncode}. "
                f"It wrote last:\n{quoted(started.stdout)}"
            )
        self._await(self.is_running, _START_S, "it did not open its socket")

    def is_running(self) -> bool:
        """Whether it answers."""
        try:
            state: Any = self._rpc().supervisor.getState()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False
        return bool(state["statecode"] == SupervisorStates.RUNNING)

    def stop(self) -> None:
        """End the supervisor and every process of its stack, orphans included."""
        if self.is_running():
            self._call("shutdown")
            deadline = time.monotonic() + _START_S
            while time.monotonic() < deadline and processes_of(self._stack.root):
                time.sleep(0.05)
        end(processes_of(self._stack.root))

    def add(self, program: HostProgram, account: Account | None) -> bool:
        """Write the program's configuration.

        Returns:
            Whether it changed.
        """
        return write_private(self._program_file(program.name), program_configuration(program, account))

    def differs(self, program: HostProgram, account: Account | None) -> bool:
        """Whether the supervisor's configuration of the program is not what it should be."""
        try:
            return self._program_file(program.name).read_text() != program_configuration(program, account)
        except OSError:
            return True

    def start_program(self, name: str) -> None:
        """Make the supervisor read the configuration of `name` and start its processes, anew if they ran."""
        self.stop_program(name)
        self._call("reloadConfig")
        self._call("addProcessGroup", name, tolerating=(Faults.ALREADY_ADDED,))

    def stop_program(self, name: str, *, service_grace_s: float = 5.0) -> None:
        """End the processes of `name`, also those that an earlier supervisor left, and forget them."""
        if self.is_running():
            self._call("stopProcessGroup", name, tolerating=(Faults.BAD_NAME,))
            self._call("removeProcessGroup", name, tolerating=(Faults.BAD_NAME,))
        end(processes_of(self._stack.root, name), grace_s=service_grace_s)

    def remove(self, name: str) -> None:
        """End the processes of `name` and remove its configuration."""
        self._program_file(name).unlink(missing_ok=True)
        self.stop_program(name)
        if self.is_running():
            self._call("reloadConfig")

    def runs(self, program: HostProgram) -> bool:
        """Whether every process of the program is running or being started."""
        return all(self._state(program, process) in _RUNNING for process in program.process_names)

    def has_settled(self, program: HostProgram) -> bool:
        """Whether every process of the program has run long enough to count as started."""
        return all(
            self._state(program, process) == ProcessStates.RUNNING for process in program.process_names
        )

    def processes(self, program: HostProgram) -> list[psutil.Process]:
        """The processes of the program that the supervisor started and that live."""
        found = []
        for process in program.process_names:
            info = self._info(program, process)
            try:
                if info and info["pid"]:
                    found.append(psutil.Process(info["pid"]))
            except psutil.NoSuchProcess:
                continue
        return found

    def hopeless(self, program: HostProgram) -> str | None:
        """Return why the program will not start by itself, or None while it may."""
        for process in program.process_names:
            info = self._info(program, process)
            if info is None:
                return "the supervisor does not know it"
            failed_at_once = info["state"] == ProcessStates.BACKOFF
            if info["state"] in _HOPELESS or failed_at_once:
                return f"the supervisor says: {info['spawnerr'] or info['description'] or info['statename']}"
        return None

    def _state(self, program: HostProgram, process: str) -> int | None:
        info = self._info(program, process)
        return None if info is None else int(info["state"])

    def _info(self, program: HostProgram, process: str) -> dict[str, Any] | None:
        try:
            info: Any = self._rpc().supervisor.getProcessInfo(f"{program.name}:{process}")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return None
        known: dict[str, Any] = info
        return known

    def _program_file(self, name: str) -> Path:
        return self._stack.programs / f"{name}.conf"

    def _rpc(self) -> xmlrpc.client.ServerProxy:
        transport = SupervisorTransport(serverurl=f"unix://{self._stack.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    def _call(self, method: str, *arguments: str, tolerating: tuple[int, ...] = ()) -> None:
        try:
            getattr(self._rpc().supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in tolerating:
                raise SupervisorError(
                    f"the supervisor of {self._stack.root} refused {method}({', '.join(arguments)}): "
                    f"{fault.faultString}. Its log: {self._stack.supervisor / 'supervisord.log'}"
                ) from fault
        except (OSError, http.client.HTTPException) as error:
            raise SupervisorError(
                f"the supervisor of {self._stack.root} does not answer ({error}). `pulumi up --refresh` starts it anew."
            ) from error

    def _await(self, condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise SupervisorError(
                    f"the supervisor of {self._stack.root} did not start: {otherwise} within {timeout_s:g} s. "
                    f"Its log ends:\n{last_lines(self._stack.supervisor / 'supervisord.log')}"
                )
            time.sleep(0.05)


def program_configuration(program: HostProgram, account: Account | None) -> str:
    """The supervisor's section about one service.

    A process that ends is started again at once; one that ends within 5 s is, after a pause that grows by a second
    each time.
    """
    stack = program.stack
    folder = stack.service(program.name)
    repeated = program.replicas != 1
    process_name = "%(program_name)s-%(process_num)d" if repeated else "%(program_name)s"
    return (
        f"[program:{program.name}]\n"
        f"command=/bin/sh run\n"
        f"directory={_literal(folder)}\n"
        f"process_name={process_name}\nnumprocs={program.replicas}\n"
        "autostart=true\nautorestart=true\nstartsecs=5\nstartretries=100\n"
        f"stopsignal={program.stop_signal}\nstopwaitsecs={program.stop_grace_s}\nkillasgroup=true\n"
        f"redirect_stderr=true\nstdout_logfile={_literal(stack.logs)}/{process_name}.log\n"
        "stdout_logfile_maxbytes=5MB\nstdout_logfile_backups=2\n"
        + (f"user={account.name}\n" if account else "")
    )


def _literal(path: Path) -> str:
    return str(path).replace("%", "%%")
