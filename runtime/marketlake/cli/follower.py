"""Follow a batch that workers carry out, and cancel it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from uuid import UUID

from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import BatchState, Progress
from marketlake.cli.exit_codes import ExitCode, PlatformUnreachableError, say
from marketlake.cli.progress import ProgressBar, ProgressDisplay, Silence
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres
from marketlake.workflows.engine import FlowRun, WorkflowClient

_POLL_S = 0.2
_LONGEST_POLL_S = 5.0
_ASK_ENGINE_EVERY_S = 1.0
TIMEOUT_S = 60.0
"""How long a database that is away, or a run that no worker begins, is waited for."""
_UNATTENDED_S = 30.0
"""How long a batch may be without its run; a run that lives through an outage of the database is back sooner."""
_AFTERMATH_S = 3.0
"""How long the batch's last word may come after the end of its run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a batch ended."""

    progress: Progress
    exit_code: ExitCode
    seconds: float


class Follower:
    """Follows one batch."""

    def __init__(
        self,
        postgres: Postgres,
        engine: WorkflowClient,
        batch_id: UUID,
        flow_run: str,
        *,
        quiet: bool,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._postgres = postgres
        self._engine = engine
        self._batch_id = batch_id
        self._flow_run = flow_run
        self._quiet = quiet
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._began = time.monotonic()
        self._over = _Lapse()
        self._unattended = _Lapse()

    def follow(self) -> RunResult:
        """Wait for the end of the batch, and return how it ended.

        Raises:
            PlatformUnreachableError: the database was away for too long, or no workflow worker took the run.
            KeyboardInterrupt: the person does not want it any more; the batch was cancelled.
        """
        with self._display() as display:
            try:
                progress = self._until_end(display)
            except KeyboardInterrupt:
                self._cancel()
                raise
        code = ExitCode.COMPLETE if progress.complete else ExitCode.INCOMPLETE
        if progress.error_code in {"platform-unreachable", "no-workers"}:
            code = ExitCode.UNREACHABLE
        return RunResult(progress=progress, exit_code=code, seconds=time.monotonic() - self._began)

    def _until_end(self, display: ProgressDisplay) -> Progress:
        asked_at, run = float("-inf"), None
        answered_at = waiting_since = time.monotonic()
        while True:
            now = time.monotonic()
            progress, trouble = self._look()
            took = time.monotonic() - now
            if progress is not None:
                answered_at = now
                if progress.state.ended:
                    display.show(progress, run)
                    return progress
            elif now - answered_at > self._timeout_s:
                raise PlatformUnreachableError(
                    f"{trouble} The collection goes on by itself where it can; run the same command "
                    "again later."
                )
            if now - asked_at > _ASK_ENGINE_EVERY_S:
                asked_at, run = now, self._engine.look(self._flow_run) or run
            display.show(progress, run)
            if run is not None and run.waiting and now - waiting_since > self._timeout_s:
                waiting_since = now
                self._require_worker()
            if (
                progress is not None
                and run is not None
                and (cause := self._cause_of_death(progress, run, now))
            ):
                return self._orphaned(progress, cause)
            # counting a batch of a million files takes a while: look at it less often then
            self._sleep(min(max(_POLL_S, 10 * took), _LONGEST_POLL_S))

    def _cause_of_death(self, progress: Progress, run: FlowRun, now: float) -> str | None:
        """Return why a run that left its batch open has died; None while it may live."""
        if self._over.lasting(run.ended, now) > _AFTERMATH_S:
            cause = f"the run ended as {run.state_type.lower()} before the collection did"
            return f"{cause} ({run.message})" if run.message else cause
        unattended = not (progress.attended or run.waiting or run.ended)
        if self._unattended.lasting(unattended, now) > _UNATTENDED_S:
            self._engine.mark_crashed(self._flow_run)
            return "the run was killed before the collection ended"
        return None

    def _require_worker(self) -> None:
        """Cancel a run that waits for a worker while no worker is online."""
        if self._engine.has_worker():
            return
        self._cancel()
        raise PlatformUnreachableError(
            f"no workflow worker began the run within {self._timeout_s:.0f} s; it was cancelled. "
            "Look at workflow-worker in `marketlake status`; `make up` starts what was stopped."
        )

    def _look(self) -> tuple[Progress | None, str]:
        try:
            with self._postgres.transaction() as connection:
                progress = batches.progress(connection, self._batch_id)
        except DatabaseUnavailableError as error:
            return None, str(error)
        if progress is None:
            return None, f"the database does not know the batch {self._batch_id} any more."
        return progress, ""

    def _orphaned(self, progress: Progress, cause: str) -> Progress:
        """Record that the run died and left the batch open."""
        message = f"{cause}. Run the same command again: what is in is not copied again."
        with self._postgres.transaction() as connection:
            batches.fail(connection, self._batch_id, "run-died", message)
        return replace(progress, state=BatchState.FAILED, error_code="run-died", error=message)

    def _cancel(self) -> None:
        say("cancelling: files in the workers' hands are still brought in, the others are dropped")
        try:
            with self._postgres.transaction() as connection:
                batches.cancel(connection, self._batch_id)
        except DatabaseUnavailableError as error:
            say(f"not cancelled: {error} The collection may go on by itself.")
        run = self._engine.look(self._flow_run)
        if run is not None and run.waiting:
            self._engine.cancel(self._flow_run)

    def _display(self) -> AbstractContextManager[ProgressDisplay]:
        return nullcontext(Silence()) if self._quiet else ProgressBar()


class _Lapse:
    """Measures how long a condition has held without a break."""

    def __init__(self) -> None:
        self._began: float | None = None

    def lasting(self, is_so: bool, now: float) -> float:
        """Seconds until `now`; 0 if it is not so."""
        if not is_so:
            self._began = None
            return 0.0
        if self._began is None:
            self._began = now
        return now - self._began
