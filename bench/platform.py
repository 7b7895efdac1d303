"""How long a stack takes to come, to be looked at again and to go, and what it weighs when idle."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.stack.live import LiveStack

MIB = 1024 * 1024
IDLE_S = 30


def run() -> None:
    """Bring a throw-away stack up with the cached tools, measure it, and destroy it."""
    with _stack() as stack:
        stack.make("up")
        line("make up, tools cached, to the table of what came out", stack.timings["up"], "s", 90)
        stack.pulumi("up", "--yes", "--skip-preview")
        line("second pulumi up, no change", stack.timings["pulumi up"], "s", 15)
        time.sleep(IDLE_S)
        weights = [_weight(process) for process in stack.processes()]
        resident = sum(weights) / MIB
        line(f"idle: {len(weights)} processes, resident (shared pages once)", resident, "MiB", 2560)
        stack.make("down")
        line("make down", stack.timings["down"], "s", 30)


def _weight(process: psutil.Process) -> int:
    """Bytes resident, each shared page divided by the number of its sharers where the system tells that."""
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.rss))


def line(what: str, value: float, unit: str, goal: float) -> None:
    """Print a figure beside its goal."""
    print(f"{what:<70} {value:>8.1f} {unit:<4} (goal {goal:g}, ratio {value / goal:.2f})", flush=True)


@contextmanager
def _stack() -> Iterator[LiveStack]:
    stack = LiveStack.somewhere()
    try:
        yield stack
    finally:
        stack.discard()


def machine() -> str:
    """The machine that the figures belong to."""
    names = {line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")}
    memory = psutil.virtual_memory().total / MIB / 1024
    return f"{os.cpu_count()} cores ({', '.join(sorted(names)) or 'unknown'}), {memory:.0f} GiB of memory"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
