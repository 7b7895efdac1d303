"""Refine series of silver with the files that were collected, whichever batch collected them."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from itertools import groupby

from marketlake.archive import ledger
from marketlake.archive.collection.tasks import RefinementTask
from marketlake.archive.ledger import LedgerEntry
from marketlake.domain.archive import Series
from marketlake.errors import is_transient
from marketlake.infrastructure.telemetry import metrics
from marketlake.pipeline.batch.silver import Refined
from marketlake.pipeline.batch.silver_files import initials
from marketlake.pipeline.contracts.tables import table_type
from marketlake.portions import portions
from marketlake.workers import assignments
from marketlake.workers.assignments import Lease, PartFailure, Result
from marketlake.workers.attempts import Attempts
from marketlake.workers.dispatcher import code_of, text_of
from marketlake.workers.worker import WorkerProcess

log = logging.getLogger(__name__)

SERIES_AT_ONCE, ROWS_AT_ONCE = 100, 1_000_000
"""Series of one task, and rows that are new in them, or a few more."""
ROWS_OF_A_COMMIT = 10_000_000
"""New rows that are rewritten in one commit: one series may have years of trades, and what is committed stays."""
Refine = Callable[[Mapping[Series, Iterable[date]]], Sequence[Refined]]
"""Rewrites days of some series of one dataset."""


def cut(series: Mapping[Series, int]) -> Iterator[list[Series]]:
    """Cut series of one dataset of a market into those of one task.

    Those that share data files stay together: two tasks would hinder each other.

    Args:
        series: with how many rows are new in them.
    """
    shared: dict[tuple[str | None, str], list[Series]] = {}
    for one in series:
        silver = table_type(one.venue, one.market, one.data_type).silver
        shared.setdefault((one.interval, initials(silver, one)), []).append(one)

    def share_of_a_task(some: Sequence[Series]) -> float:
        return max(len(some) / SERIES_AT_ONCE, sum(series[one] for one in some) / ROWS_AT_ONCE)

    for task in portions(shared.values(), share_of_a_task, 1):
        yield [one for some in task for one in some]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be refined of one series."""

    entries: tuple[LedgerEntry, ...]
    days: tuple[date, ...]


class Refiner:
    """Works on tasks of the kind :data:`~marketlake.archive.collection.tasks.REFINEMENT`.

    An entry of the ledger counts as refined only after its days were rewritten, so what a killed worker leaves is
    refined by the next one. A series that fails stops no other.

    Args:
        process: the worker.
        refine: rewrites days of some series.
    """

    def __init__(self, process: WorkerProcess, *, refine: Refine) -> None:
        self._attempts = Attempts(process)
        self._postgres = process.postgres
        self._refine = refine

    def work(self, lease: Lease) -> None:
        """See :meth:`marketlake.workers.dispatcher.TaskKind.work`."""
        task = RefinementTask.model_validate(lease.payload)
        names = task.named()
        rows, failures = 0, dict[str, PartFailure]()
        done: list[LedgerEntry] = []
        for wanted in self._wanted(list(names)):
            if done:
                with self._postgres.transaction() as connection:
                    ledger.mark_refined(connection, done)
            written, failed = self._refined(lease, wanted, names)
            rows += written
            failures |= {failure.key: failure for failure in failed}
            left = {failure.key for failure in failed}
            done = [
                entry
                for series, each in wanted.items()
                if names[series] not in left
                for entry in each.entries
            ]
        result = Result(rows=rows, failures=tuple(failures.values()))
        with self._postgres.transaction() as connection:
            ledger.mark_refined(connection, done)
            assignments.end(connection, lease, result, staged=False)
        labels = {"venue": task.venue, "market": task.market, "data_type": task.data_type}
        metrics.rows().add(rows, {**labels, "layer": "silver"})
        for failure in failures.values():
            metrics.failures().add(1, {"venue": task.venue, "code": failure.code})
            log.error("refining %s failed: %s: %s", failure.key, failure.code, failure.message)
        log.info(
            "silver: %s %s, %d series, %d rows, %d failed",
            task.market,
            task.data_type,
            len(names),
            rows,
            len(failures),
        )

    def _wanted(self, series: Sequence[Series]) -> list[dict[Series, _Wanted]]:
        """What is rewritten in one commit each."""
        with self._postgres.transaction() as connection:
            return [
                {
                    key: _Wanted(tuple(group), tuple(_days(group, ledger.former_days(connection, group))))
                    for key, group in _by_series(some)
                }
                for some in _in_commits(ledger.unrefined_of(connection, series))
            ]

    def _refined(
        self, lease: Lease, wanted: Mapping[Series, _Wanted], names: Mapping[Series, str]
    ) -> tuple[int, list[PartFailure]]:
        """Rows written, and the series that failed: all at once, one by one if that fails."""
        if not wanted:
            return 0, []
        try:
            days = {series: each.days for series, each in wanted.items()}
            refined = self._attempts.retry(lease, partial(self._refine, days))
            return sum(one.rows for one in refined), []
        except Exception as error:
            if is_transient(error):
                raise  # the store, the database or this process: it would befall each series likewise
            if len(wanted) == 1:
                log.exception("refining %s failed", *map(names.get, wanted))
                return 0, [PartFailure(names[series], code_of(error), text_of(error), 1) for series in wanted]
            log.warning("refining %d series failed: each is tried by itself: %s", len(wanted), error)
        rows, failures = 0, []
        for series, each in wanted.items():
            written, failed = self._refined(lease, {series: each}, names)
            rows += written
            failures += failed
        return rows, failures


def _in_commits(entries: Iterable[LedgerEntry]) -> Iterator[list[LedgerEntry]]:
    """Cut entries into those of one commit, series by series and in order of time."""
    ordered = sorted(entries, key=lambda entry: (_identity(entry.series), entry.first_day or date.min))
    return portions(ordered, lambda entry: entry.rows, ROWS_OF_A_COMMIT)


def _by_series(entries: Iterable[LedgerEntry]) -> list[tuple[Series, list[LedgerEntry]]]:
    ordered = sorted(entries, key=lambda entry: _identity(entry.series))
    return [(key, list(group)) for key, group in groupby(ordered, key=lambda entry: entry.series)]


def _identity(series: Series) -> tuple[str, ...]:
    return (series.venue, series.market, series.data_type, series.symbol, series.interval or "")


def _days(entries: Iterable[LedgerEntry], former: Iterable[tuple[date, date]]) -> list[date]:
    """UTC days that the rows of these files, or of the versions that they replaced, lie in."""
    ranges = [
        (entry.first_day, entry.last_day) for entry in entries if entry.first_day and entry.last_day
    ] + list(former)
    days = {
        first + timedelta(days=number) for first, last in ranges for number in range((last - first).days + 1)
    }
    return sorted(days)
