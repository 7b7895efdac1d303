"""Runs a playbook by ansible-runner: a line a step, one message when it fails."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_runner
import psutil

FOLDER = Path(__file__).parent
MARK = "MARKETLAKE_PLAYBOOK"
"""In the environment of Ansible and of all that it starts for a step; daemons and apt are started without it."""

_FOLDERS = "marketlake-playbook-"


class PlaybookError(Exception):
    """A step failed; the message is the step's own."""


class PlaybookInterrupted(Exception):  # noqa: N818 - the user's wish, no error
    """Ctrl-C, or SIGTERM."""


@dataclass(frozen=True)
class Step:
    """One task of a playbook, done."""

    name: str
    seconds: float
    changed: bool


@dataclass
class Run:
    """The result of a playbook."""

    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    failure: str | None = None

    @property
    def changed(self) -> int:
        """How many steps changed something."""
        return sum(step.changed for step in self.steps)


def run_playbook(
    name: str, variables: Mapping[str, Any], *, begun: Callable[[str], None], done: Callable[[Step], None]
) -> Run:
    """Run ``playbooks/NAME.yaml`` on this machine.

    Args:
        name: of the playbook.
        variables: for it.
        begun: called with each step's name when it begins.
        done: called with each step when it is done.

    Raises:
        PlaybookError: a step failed.
        PlaybookInterrupted: the user wished it to end.
    """
    run = Run()
    began = time.monotonic()
    listener = _Listener(run, begun, done)
    with _signals_as_before(), tempfile.TemporaryDirectory(prefix=f"{_FOLDERS}{name}-") as folder:
        result = ansible_runner.run(
            private_data_dir=folder,
            playbook=str(FOLDER / f"{name}.yaml"),
            inventory={"node": {"hosts": {"localhost": {"ansible_connection": "local"}}}},
            extravars={"ansible_python_interpreter": sys.executable, **variables},
            envvars=environment(name, folder),
            event_handler=listener.hear,
            quiet=True,
        )
        said = result.stdout.read() if result.status == "failed" and run.failure is None else ""
    run.seconds = time.monotonic() - began
    if result.status == "canceled":
        raise PlaybookInterrupted
    if result.status != "successful":
        raise PlaybookError(
            run.failure or f"Ansible ended with status {result.status}: {said.strip()[-2000:]}"
        )
    return run


def end_leftovers(*names: str) -> None:
    """End the processes of killed runs of these playbooks, and remove their folders.

    To be called by whom no run of these goes on beside.
    """
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) in names:
                process.kill()
                left.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    psutil.wait_procs(left, timeout=10)
    for name in names:
        for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}{name}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def environment(name: str, folder: str) -> dict[str, str]:
    """Return the settings of Ansible, so that no file of the user's or of the machine's changes what it does."""
    scripts = Path(sys.executable).parent
    return {
        MARK: name,
        "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(FOLDER.parent),
        "ANSIBLE_CONFIG": str(FOLDER / "ansible.cfg"),
        "ANSIBLE_HOME": folder,
        "ANSIBLE_LOCAL_TEMP": folder,
        "ANSIBLE_REMOTE_TEMP": folder,
    }


@contextmanager
def _signals_as_before() -> Iterator[None]:
    """Ansible's runner takes these signals for itself, and keeps them: nothing would end what comes after it."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _Listener:
    """Hears Ansible's events."""

    def __init__(self, run: Run, begun: Callable[[str], None], done: Callable[[Step], None]) -> None:
        self._run = run
        self._begun = begun
        self._done = done
        self._since = time.monotonic()

    def hear(self, event: dict[str, Any]) -> bool:
        data = event.get("event_data", {})
        match event.get("event"):
            case "playbook_on_task_start":
                self._since = time.monotonic()
                self._begun(_title(data))
            case "runner_on_ok":
                changed = bool(data.get("res", {}).get("changed"))
                step = Step(_title(data), time.monotonic() - self._since, changed)
                self._run.steps.append(step)
                self._done(step)
            case "runner_on_failed" | "runner_on_unreachable":
                self._run.failure = f"{_title(data)}: {_reason(data.get('res', {}))}"
        return False


def _title(data: dict[str, Any]) -> str:
    return str(data.get("task") or "step")


def _reason(result: dict[str, Any]) -> str:
    texts = [str(result.get(key) or "").strip() for key in ("msg", "stderr", "module_stderr")]
    return "\n".join(dict.fromkeys(text for text in texts if text)) or str(result.get("exception") or result)
