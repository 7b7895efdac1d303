"""Refresh silver with the files that were collected, whichever batch collected them."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from itertools import groupby

from marketlake.archive import ledger
from marketlake.archive.ledger import LedgerEntry
from marketlake.domain.archive import Selection, Series
from marketlake.infrastructure.postgres import Postgres
from marketlake.infrastructure.postgres.locks import hold
from marketlake.pipeline.batch.silver import Refined

log = logging.getLogger(__name__)


SERIES_AT_ONCE = 50
"""Series that are rewritten in one commit."""
Refine = Callable[[Mapping[Series, Iterable[date]]], Sequence[Refined]]


def refine_pending(
    postgres: Postgres, selection: Selection, refine: Refine, *, wait: Callable[[float], bool]
) -> int:
    """Refine all series of a dataset that have files collected since the last time; return the rows written.

    An entry counts as refined only after its days were rewritten, so a run that is killed leaves the rest to
    the next one. Two runs take turns on a dataset.

    Args:
        postgres: the platform's database.
        selection: names the venue, a market and a data type, at least.
        refine: rewrites days of some series.
        wait: waits for the other run.
    """
    rows = 0
    dataset = (selection.venue, selection.market or "", selection.data_type or "")
    with hold(postgres, "silver", *dataset, wait=wait) as session:
        pending = _by_series(ledger.unrefined(session, selection))
        for begin in range(0, len(pending), SERIES_AT_ONCE):
            some = pending[begin : begin + SERIES_AT_ONCE]
            wanted = {
                series: _days(entries, ledger.former_days(session, entries)) for series, entries in some
            }
            rows += sum(refined.rows for refined in refine(wanted))
            ledger.mark_refined(session, [entry for _, entries in some for entry in entries])
            log.info("silver: %s %s, %d of %d series", *dataset[1:], begin + len(some), len(pending))
    return rows


def _by_series(entries: Iterable[LedgerEntry]) -> list[tuple[Series, list[LedgerEntry]]]:
    def series(entry: LedgerEntry) -> Series:
        return Series(
            venue=entry.venue,
            market=entry.market,
            data_type=entry.data_type,
            symbol=entry.symbol,
            interval=entry.interval,
        )

    ordered = sorted(entries, key=lambda entry: _identity(series(entry)))
    return [(key, list(group)) for key, group in groupby(ordered, key=series)]


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
