"""Running programs in front of the user: Pulumi and the platform's own command line."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self


class ProgramError(Exception):
    """A program ended with an error, which it has shown to the user itself."""

    def __init__(self, program: str, code: int) -> None:
        self.code = code
        super().__init__(f"`{program}` ended with exit code {code}")


class InterruptError(Exception):
    """The user, or the system, asked to stop; the program that ran has cleaned up and ended."""


def run(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
    """Run a program on the user's terminal until it ends.

    Ctrl-C reaches a program on the same terminal by itself; every other request to stop is handed on, as one
    SIGINT, on which Pulumi ends what it is doing, unlocks the stack and leaves. A second would kill it.

    Raises:
        ProgramError: it ended with an error.
        InterruptError: it was asked to stop.
    """
    with _StopRequests() as requests, subprocess.Popen(argv, env=dict(env), cwd=cwd) as process:
        requests.hand_to(process)
        code = process.wait()
    if requests.seen or code in (-signal.SIGINT, 130):
        raise InterruptError
    if code:
        raise ProgramError(" ".join([Path(argv[0]).name, *argv[1:2]]), code)


def read(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> str:
    """Run a program out of sight and return what it wrote; if it fails, its errors are shown.

    Raises:
        ProgramError: it ended with an error.
    """
    done = finish(argv, env=env, cwd=cwd)
    if done.code:
        sys.stderr.write(done.errors or done.out)
        raise ProgramError(" ".join([Path(argv[0]).name, *argv[1:3]]), done.code)
    return done.out


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ran out of sight to its end."""

    code: int
    out: str
    errors: str


def finish(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Ended:
    """Run a program out of sight to its end, whether it succeeds or not."""
    done = subprocess.run(argv, env=dict(env), cwd=cwd, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


class _StopRequests:
    """Requests to stop, of which a program that runs gets the first, as SIGINT.

    They are heeded from before its start: a shell's background job (a CI's, say) ignores SIGINT, and a program
    that inherited this would be deaf to what is handed on.
    """

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._reached = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def hand_to(self, process: "subprocess.Popen[bytes]") -> None:
        """Hand on what comes, and what came while the program was being started."""
        self._process = process
        if self.seen and not self._reached:
            process.send_signal(signal.SIGINT)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.seen and self._process is not None:
            self._reached = True
            if number != signal.SIGINT or not _in_foreground():
                self._process.send_signal(signal.SIGINT)
        self.seen.append(number)


def _in_foreground() -> bool:
    """Whether Ctrl-C on the terminal, if there is one, reaches this process and so all that it started."""
    try:
        with Path("/dev/tty").open() as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
