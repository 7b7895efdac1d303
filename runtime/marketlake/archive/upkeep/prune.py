"""Forget in PostgreSQL what has ended: batches with their tasks, and what the committer has settled.

What remains for good is the ledger, its conflicts, and the data files that are visible.
"""

from dataclasses import dataclass
from datetime import timedelta

from marketlake.archive import ledger
from marketlake.archive.collection import batches
from marketlake.infrastructure.postgres import Postgres
from marketlake.pipeline.ingest import staging

BATCHES_KEPT = timedelta(days=30)
"""How long a batch that has ended can be looked up, with the files that failed."""
UNITS_KEPT = timedelta(days=1)
"""How long units that were committed, and data files that were replaced, can be looked up."""


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
