"""Refresh silver with the files that were collected, whichever batch collected them."""

import logging
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from itertools import groupby

from marketlake.archive import ledger
from marketlake.archive.ledger import LedgerEntry
from marketlake.domain.archive import Selection, Series
from marketlake.infrastructure.postgres import Postgres
from marketlake.infrastructure.postgres.locks import hold
from marketlake.pipeline.batch.silver import Refined

log = logging.getLogger(__name__)


Refine = Callable[[Series, Iterable[date]], Refined]


def refine_pending(
    postgres: Postgres, selection: Selection, refine: Refine, *, wait: Callable[[float], bool]
) -> int:
    """Refine all series of the selection that have files collected since the last time; return the rows written.

    An entry counts as refined only after its days were rewritten, so a run that is killed leaves the rest to
    the next one. Two runs take turns on a series.
    """
    with postgres.transaction() as connection:
        pending = ledger.unrefined(connection, selection)
    rows = 0
    for series, entries in _by_series(pending):
        with hold(postgres, "series", *map(str, _identity(series)), wait=wait) as session:
            days = _days(entries, ledger.former_days(session, entries))
            rows += refine(series, days).rows
            ledger.mark_refined(session, entries)
        log.info("silver: %s, %d days rewritten", " ".join(filter(None, _identity(series))), len(days))
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
