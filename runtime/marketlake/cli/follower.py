"""Follow a batch that workers carry out, and cancel it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from uuid import UUID

from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import Progress
from marketlake.cli.exit_codes import ExitCode, PlatformUnreachableError, say
from marketlake.cli.progress import ProgressBar, ProgressDisplay, Silence
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres

_FIRST_POLL_S, _LONGEST_POLL_S = 0.05, 5.0
_POLL_S = 0.2
"""How often is looked once that a collection is seen not to be a matter of a second."""
TIMEOUT_S = 60.0
"""How long a database that is away, or a batch that no worker carries on, is waited for."""


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
        batch_id: UUID,
        *,
        quiet: bool,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._postgres = postgres
        self._batch_id = batch_id
        self._quiet = quiet
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._began = time.monotonic()

    def follow(self) -> RunResult:
        """Wait for the end of the batch, and return how it ended.

        Raises:
            PlatformUnreachableError: the database, or all collection workers, were away for too long.
            KeyboardInterrupt: the person does not want it any more; the batch was cancelled.
        """
        with self._display() as display:
            try:
                progress = self._until_end(display)
            except KeyboardInterrupt:
                self._cancel()
                raise
        code = ExitCode.COMPLETE if progress.complete else ExitCode.INCOMPLETE
        if progress.error_code == "platform-unreachable":
            code = ExitCode.UNREACHABLE
        return RunResult(progress=progress, exit_code=code, seconds=time.monotonic() - self._began)

    def _until_end(self, display: ProgressDisplay) -> Progress:
        answered_at = attended_at = time.monotonic()
        while True:
            now = time.monotonic()
            progress, trouble = self._look()
            took = time.monotonic() - now
            display.show(progress)
            if progress is None:
                if now - answered_at > self._timeout_s:
                    raise PlatformUnreachableError(
                        f"{trouble} The collection goes on by itself where it can; run the same command "
                        "again later."
                    )
                attended_at = now  # nobody knows
            else:
                answered_at = now
                if progress.state.ended:
                    return progress
                if progress.attended:
                    attended_at = now
                elif now - attended_at > self._timeout_s:
                    raise PlatformUnreachableError(
                        f"no collection worker has given a sign of life for {self._timeout_s:.0f} s. Look at "
                        "collection-worker in `marketlake status`, and at its log; `make up` starts what was "
                        "stopped. The collection is kept, and goes on when a worker is back."
                    )
            early = _FIRST_POLL_S if now - self._began < 1 else _POLL_S
            # counting a batch of a million files takes a while: look at it less often then
            self._sleep(min(max(early, 10 * took), _LONGEST_POLL_S))

    def _look(self) -> tuple[Progress | None, str]:
        try:
            with self._postgres.transaction() as connection:
                progress = batches.progress(connection, self._batch_id)
        except DatabaseUnavailableError as error:
            return None, str(error)
        if progress is None:
            return None, f"the database does not know the batch {self._batch_id} any more."
        return progress, ""

    def _cancel(self) -> None:
        say("cancelling: files in the workers' hands are still brought in, the others are dropped")
        try:
            with self._postgres.transaction() as connection:
                batches.cancel(connection, self._batch_id)
        except DatabaseUnavailableError as error:
            say(f"not cancelled: {error} The collection may go on by itself.")

    def _display(self) -> AbstractContextManager[ProgressDisplay]:
        return nullcontext(Silence()) if self._quiet else ProgressBar()
