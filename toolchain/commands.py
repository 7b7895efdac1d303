"""Runs the programs that build and download, line by line, for progress and errors."""

import os
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO

from toolchain.errors import CommandFailedError, DiskSpaceError

_TAIL_LINES = 12
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] = lambda _line: None,
    on_start: Callable[[int], None] = lambda _group: None,
    on_end: Callable[[int], None] = lambda _group: None,
) -> str:
    """Run a program to its end and give its standard output.

    It runs in a process group of its own, which is killed if this process is interrupted while waiting.

    Args:
        argv: program and arguments.
        env: variables set on top of this process's own.
        cwd: working directory.
        log: file to append everything the program says to.
        on_line: called with every line of its standard error.
        on_start: called with its process group, which another thread may kill until `on_end` is called.
        on_end: called with its process group when it has ended.

    Raises:
        CommandFailedError: it could not be started or ended with an error; carries its last lines.
        DiskSpaceError: it said that the disk is full.
    """
    words = [str(word) for word in argv]
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        process = subprocess.Popen(
            words,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailedError(f"cannot start {words[0]}: {error}") from error
    try:
        on_start(process.pid)
        output = _follow(process, words, tail, log, on_line)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        on_end(process.pid)
    if process.returncode != 0:
        text = "\n".join(tail) or output.strip()[-2000:]
        if _NO_SPACE.search(text):
            raise DiskSpaceError(f"{Path(words[0]).name} found the disk full: {text.splitlines()[-1]}")
        where = f"\nfull output: {log}" if log else ""
        said = " ".join([Path(words[0]).name, *words[1:2]])
        raise CommandFailedError(f"`{said}` ended with {process.returncode}:\n{text}{where}")
    return output


def _follow(
    process: "subprocess.Popen[str]",
    words: Sequence[str],
    tail: deque[str],
    log: Path | None,
    on_line: Callable[[str], None],
) -> str:
    collected: list[str] = []
    reader = threading.Thread(target=_collect, args=(process.stdout, collected), daemon=True)
    reader.start()
    with log.open("a") if log else nullcontext() as file:
        if file:
            file.write(f"$ {' '.join(words)}\n")
        for raw in process.stderr or ():
            line = raw.rstrip()
            tail.append(line)
            if file:
                file.write(f"{line}\n")
            on_line(line)
        process.wait()
        reader.join()
        if file:
            file.writelines(collected)
    return "".join(collected)


def _collect(stream: IO[str], into: list[str]) -> None:
    into.extend(stream)
