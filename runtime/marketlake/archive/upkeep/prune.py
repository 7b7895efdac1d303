"""Forget in PostgreSQL what has ended: batches with their tasks, and what the committer has settled.

What remains for good is the ledger, its conflicts, and the data files that are visible.
"""

import logging
import threading
from dataclasses import astuple, dataclass
from datetime import timedelta
from functools import partial

from marketlake.archive import ledger
from marketlake.archive.collection import batches
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres
from marketlake.pipeline.ingest import staging
from marketlake.retry import Backoff, RetryStoppedError, retry

log = logging.getLogger(__name__)

EVERY_S = 3600.0
BATCHES_KEPT = timedelta(days=30)
"""How long a batch that has ended can be looked up, with the files that failed."""
UNITS_KEPT = timedelta(days=1)
"""How long units that were committed, and data files that were replaced, can be looked up."""
_FIRST_AFTER_S = 60.0
_BACKOFF = Backoff(first_wait_s=1.0, longest_wait_s=30.0)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows were deleted."""

    batches: int
    units: int
    data_files: int


def prune(
    postgres: Postgres, *, batches_kept: timedelta = BATCHES_KEPT, units_kept: timedelta = UNITS_KEPT
) -> Pruned:
    """Delete what ended longer ago than it is kept. Safe to run at the same time as itself, and as everything else."""
    with postgres.transaction() as connection:
        ended = batches.prune(connection, kept=batches_kept)
    with postgres.transaction() as connection:
        units = staging.prune_units(connection, kept=units_kept)
    with postgres.transaction() as connection:
        gone = staging.ended_files(connection, kept=units_kept)
        ledger.leave_data_files(connection, gone)
        data_files = staging.delete_files(connection, gone)
    return Pruned(ended, units, data_files)


class Pruner:
    """Prunes from time to time; any number of processes may run one.

    Args:
        postgres: the database.
        first_after_s: seconds before the first time.
        every_s: seconds between two times.
    """

    def __init__(
        self, postgres: Postgres, *, first_after_s: float = _FIRST_AFTER_S, every_s: float = EVERY_S
    ) -> None:
        self._postgres = postgres
        self._first_after_s = first_after_s
        self._every_s = every_s

    def run(self, stop: threading.Event) -> None:
        """Prune until `stop` is set; outages are waited out."""
        wait_s = self._first_after_s
        while not stop.wait(wait_s):
            try:
                pruned = retry(
                    partial(prune, self._postgres),
                    backoff=_BACKOFF,
                    on=DatabaseUnavailableError,
                    wait=stop.wait,
                )
            except RetryStoppedError:
                return
            if any(astuple(pruned)):
                log.info(
                    "forgotten: %d batches, %d units, %d data files",
                    pruned.batches,
                    pruned.units,
                    pruned.data_files,
                )
            wait_s = self._every_s
