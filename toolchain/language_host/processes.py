"""The processes that the host starts: what they print is passed on at once, and none outlives the host."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto

_CHUNK = 1 << 16
_LINGER_SECONDS = 0.5
"""How long pipes may stay silent, and open, after the process has ended: a daemon that it left behind holds them."""
_GRACE_SECONDS = 3.0
"""Between SIGTERM and SIGKILL. The engine gives the host 5 s for all."""
_POLL_SECONDS = 0.02


class Stream(Enum):
    """Where a process printed something."""

    OUTPUT = auto()
    ERRORS = auto()


Tell = Callable[[Stream, bytes], Awaitable[None]]


class Processes:
    """All processes of one host."""

    def __init__(self) -> None:
        self._running: set[Process] = set()

    async def run(
        self, argv: Sequence[str], *, variables: Mapping[str, str], folder: str | None, tell: Tell
    ) -> int:
        """Run a program to its end and return its exit code; negative if a signal ended it.

        The process leads a group of its own, all of which ends if this call is cancelled.

        Args:
            argv: program and arguments.
            variables: its whole environment.
            folder: its working directory; None: that of the host.
            tell: called with what it prints, as it prints it.
        """
        process = await asyncio.create_subprocess_exec(
            *argv, env=variables, cwd=folder, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, process_group=0
        )
        self._running.add(process)
        try:
            await _follow(process, tell)
            return await process.wait() if process.returncode is None else process.returncode
        finally:
            await _end(process)
            self._running.discard(process)

    async def end(self) -> None:
        """End all that still run."""
        await asyncio.gather(*map(_end, self._running))


async def _follow(process: Process, tell: Tell) -> None:
    """Pass on what a process prints until both pipes are closed."""
    streams = {Stream.OUTPUT: process.stdout, Stream.ERRORS: process.stderr}
    readers = {stream: reader for stream, reader in streams.items() if reader is not None}
    reading = {asyncio.create_task(reader.read(_CHUNK)): stream for stream, reader in readers.items()}
    try:
        while reading:
            done, _ = await asyncio.wait(
                reading, timeout=_LINGER_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not done and process.returncode is not None:
                return
            for task in done:
                stream = reading.pop(task)
                if chunk := task.result():
                    reading[asyncio.create_task(readers[stream].read(_CHUNK))] = stream
                    await tell(stream, chunk)
    finally:
        for task in reading:
            task.cancel()


async def _end(process: Process) -> None:
    """End a process that still runs, and its group; what one left behind that ended by itself may stay."""
    if process.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                # wait() would also wait for the pipes, which the process may have handed on.
                while process.returncode is None:  # noqa: ASYNC110 - nothing tells of the exit alone
                    await asyncio.sleep(_POLL_SECONDS)
