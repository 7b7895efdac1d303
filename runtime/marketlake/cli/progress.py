"""Show the progress of a batch on a terminal."""

from typing import Any, Protocol, Self

from marketlake.archive.collection.batches import BatchState, Progress
from marketlake.cli.exit_codes import say


class ProgressDisplay(Protocol):
    """Shows the progress of a batch."""

    def show(self, progress: Progress | None) -> None:
        """Show the progress; None: it is not known now."""
        ...


class Silence:
    """Shows nothing: the output is for a program."""

    def show(self, progress: Progress | None) -> None:
        """Show nothing."""


class ProgressBar:
    """A progress bar on a terminal; a line for each new phase elsewhere."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        from marketlake.cli.output import console

        self._console = console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: Any = self._bars.add_task("starting", total=None, detail="")
        self._phase = ""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, progress: Progress | None) -> None:
        """Show phase, files and rows."""
        phase = _phase(progress)
        if progress is None:
            self._bars.update(self._task, description=phase)
        else:
            wanted = progress.verified + progress.failed + progress.cancelled + progress.open
            done = wanted - progress.open
            self._bars.update(
                self._task,
                description=phase,
                total=wanted or None,
                completed=done,
                detail=f"{progress.rows:,} rows" + (f", {progress.failed} failed" if progress.failed else ""),
            )
        if phase != self._phase:
            self._phase = phase
            if not self._console.is_terminal:
                say(phase)


def _phase(progress: Progress | None) -> str:
    if progress is None:
        return "the database does not answer, waiting"
    if not progress.attended and not progress.state.ended:
        return "waiting for a collection worker"
    if progress.state is BatchState.PLANNING:
        return "discovering and collecting" if progress.found else "discovering"
    return progress.state.value
