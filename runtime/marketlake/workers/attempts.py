"""Trying again on behalf of a task, so that a person who follows can see why it takes long."""

import logging
from collections.abc import Callable
from typing import TypeVar

from marketlake.infrastructure.postgres import DatabaseUnavailableError
from marketlake.retry import Backoff, FailedAttempt, retry
from marketlake.workers import assignments
from marketlake.workers.assignments import Lease
from marketlake.workers.dispatcher import code_of, text_of
from marketlake.workers.worker import WorkerProcess

log = logging.getLogger(__name__)

Made = TypeVar("Made")


class Attempts:
    """Tries again what may pass, and notes each failure in the task.

    Args:
        process: the worker; `collection.attempts` of its settings says how often.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self._backoff = Backoff(attempts=process.settings.collection.attempts)
        self._postgres = process.postgres
        self._stop = process.stop

    def retry(self, lease: Lease, action: Callable[[], Made]) -> Made:
        """Call until it succeeds, and return its result.

        Raises:
            RetryStoppedError: the process ends.
            Exception: what the last attempt raised.
        """

        def tell(failed: FailedAttempt) -> None:
            log.warning("%s; trying again in %.1f s", failed.error, failed.wait_s)
            self.note(lease, failed.error)

        return retry(action, backoff=self._backoff, wait=self._stop.wait, tell=tell)

    def note(self, lease: Lease, error: Exception) -> None:
        """Note a failure in the task, unless the database is away."""
        try:
            with self._postgres.transaction() as connection:
                assignments.attempt_failed(connection, lease, code_of(error), text_of(error))
        except DatabaseUnavailableError as problem:
            log.warning("%s", problem)
