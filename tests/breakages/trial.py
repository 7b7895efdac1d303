"""Trying one breakage in a copy of the checkout: is its test green before, and red after the patch?"""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil

from tests.breakages.patches import Breakage, PatchError

LIMIT_S = 3600.0
"""How long one run of pytest may take; the slowest bring up a platform in a cluster first."""
_END_GRACE_S = 60.0
"""How long an interrupted pytest may take to end the servers that its tests have started."""
_TAIL = 15
_ONE_CLUSTER = threading.Lock()
"""Tests of a cluster make this machine its node: one run at a time."""


class Verdict(StrEnum):
    """What became of a breakage."""

    RED = "red"
    """The test noticed: the promise is held."""
    GREEN = "GREEN"
    """No test noticed: the promise is lost."""
    STALE = "does not apply"
    """The code that the patch changes has moved on."""
    RED_BEFORE = "red before"
    """The test fails without the patch, too, so that nothing is shown."""
    NOT_RUN = "cannot run here"
    """The test is skipped on this machine, so that nothing is shown."""
    BROKEN = "broken"
    """Pytest could not run the test with the patch, or did not end."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A breakage that was tried."""

    breakage: Breakage
    verdict: Verdict
    seconds: float
    detail: str = ""
    """What pytest, git or make said last; empty where all is well."""


class StoppedError(Exception):
    """The whole run was stopped."""


@dataclass(frozen=True, slots=True)
class _Run:
    """How a run of pytest ended."""

    code: int
    """Its exit code: 0 all passed or were skipped, 1 some failed."""
    passed: int
    tail: str


def try_breakage(breakage: Breakage, checkout: Path, folder: Path, stop: threading.Event) -> Trial:
    """Try a breakage in a copy of the checkout as it lies, uncommitted changes included.

    Args:
        breakage: what is broken.
        checkout: is only read.
        folder: is created for the copy and all that its tests write, and removed at the end.
        stop: ends it early.

    Raises:
        StoppedError: `stop` was set.
    """
    began = time.monotonic()
    try:
        with _ONE_CLUSTER if breakage.red.startswith("tests/kubernetes/") else nullcontext():
            verdict, detail = _verdict(breakage, checkout, folder, stop)
    finally:
        end_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return Trial(breakage, verdict, time.monotonic() - began, detail)


def _verdict(breakage: Breakage, checkout: Path, folder: Path, stop: threading.Event) -> tuple[Verdict, str]:
    tree = folder / "tree"
    copy_checkout(checkout, tree)
    (folder / "tmp").mkdir()
    for place in (folder, folder / "tmp"):
        place.chmod(0o711)  # PostgreSQL's account has to get to the folders that tests make for it
    try:
        breakage.apply(tree, check_only=True)
    except PatchError as error:
        return Verdict.STALE, str(error)
    made = _command(["make", "--silent", ".venv/.synced"], folder, stop)
    if made.code:
        return Verdict.BROKEN, made.tail
    before = _pytest(breakage.red, folder, stop)
    if before.code:
        return Verdict.RED_BEFORE, before.tail
    if not before.passed:
        return Verdict.NOT_RUN, before.tail
    end_processes(folder)
    breakage.apply(tree)
    after = _pytest(breakage.red, folder, stop)
    match after.code:
        case 0:
            return Verdict.GREEN, after.tail
        case 1:
            return Verdict.RED, ""
        case _:
            return Verdict.BROKEN, after.tail


def copy_checkout(checkout: Path, tree: Path) -> None:
    """Copy all files that git knows or would add, as they lie."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    for name in {*listed.stdout.split("\0")} - {""}:
        source, target = checkout / name, tree / name
        if (
            source.is_symlink() or source.is_file()
        ):  # one that was deleted is still listed until it is committed
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def end_processes(folder: Path) -> None:
    """End what runs from a folder or works in it: a breakage may keep a test from ending what it started."""
    left = [process for process in psutil.process_iter() if _belongs(process, str(folder))]
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=10)


def _belongs(process: psutil.Process, folder: str) -> bool:
    try:
        words = [process.exe(), process.cwd(), *process.cmdline()]
    except (psutil.Error, OSError):
        return False
    return any(folder in word for word in words)


def _pytest(target: str, folder: Path, stop: threading.Event) -> _Run:
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    options = ["-x", "-q", "-ra", "-p", "no:cacheprovider", f"--junitxml={report}"]
    run = _command([".venv/bin/python", "-m", "pytest", *options, target], folder, stop)
    return _Run(run.code, _passed(report), run.tail)


def _passed(report: Path) -> int:
    """How many tests passed, according to a JUnit report."""
    if not report.exists():
        return 0
    suites = ET.parse(report).getroot().iter("testsuite")  # noqa: S314 - our own pytest wrote it
    others = ("failures", "errors", "skipped")
    return sum(
        int(suite.get("tests", 0)) - sum(int(suite.get(name, 0)) for name in others) for suite in suites
    )


def _command(command: list[str], folder: Path, stop: threading.Event) -> _Run:
    """Run a command in the copy until it ends.

    Raises:
        StoppedError: `stop` was set; the command was ended.
    """
    log = folder / "output.log"
    deadline = time.monotonic() + LIMIT_S
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder / "tree",
            env=_environment(os.environ, folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while (code := process.poll()) is None and not stop.wait(0.1):
                if time.monotonic() > deadline:
                    break
        finally:
            _end(process)
    if stop.is_set():
        raise StoppedError
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL:])
    if code is None:
        return _Run(-1, 0, f"{tail}\n{command[0]} was ended: it took longer than {LIMIT_S:.0f} s")
    return _Run(code, 0, tail)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt a command, which lets pytest tear down what its tests have set up, and kill what stays."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(_END_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(outer: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment without what leads back to the checkout, or to a make that runs this."""
    ours = ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
    kept = {name: value for name, value in outer.items() if name not in ours}
    return kept | {"TMPDIR": str(folder / "tmp")}
