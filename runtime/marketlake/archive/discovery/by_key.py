"""Discovery at a venue that cannot be listed: which files there may be, each to be asked for by its key."""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta

from marketlake.domain.archive import Frequency, Selection
from marketlake.domain.period import Period, period_bounds, period_name
from marketlake.domain.venue import Dataset, KeyFields, SelectionError, Venue, matching_datasets

_DAY = timedelta(days=1)
_PERIODS = {Frequency.DAILY: Period.DAY, Frequency.MONTHLY: Period.MONTH}


def possible_files(venue: Venue, parts: Iterable[Selection], today: date) -> list[KeyFields]:
    """Return what the keys of all files say that the selections can mean, series by series and day by day.

    Args:
        venue: the plug-in.
        parts: selections in the venue's words.
        today: the current UTC day; nothing is published for a day that has not ended.

    Raises:
        SelectionError: no symbol or no first day is named, so that nobody can tell what to ask for.
    """
    found: list[KeyFields] = []
    for part in parts:
        if not part.symbols or part.start is None:
            raise SelectionError(
                f"{venue.name} cannot be listed: name the symbols and the first day (--symbol, --from), so that its "
                "files can be asked for one by one."
            )
        last = min(part.end or today, today - _DAY)
        for dataset in matching_datasets(venue, part):
            for frequency in dataset.frequencies:
                if part.frequency in (None, frequency):
                    found += _of_dataset(dataset, part, frequency, part.start, last)
    return found


def _of_dataset(
    dataset: Dataset, selection: Selection, frequency: Frequency, first: date, last: date
) -> Iterator[KeyFields]:
    lengths = [each for each in dataset.intervals if selection.interval in (None, each)]
    intervals: list[str | None] = [*lengths] if dataset.intervals else [None]
    periods = list(_periods(frequency, first, last))
    for symbol in selection.symbols:
        for interval in intervals:
            for start, end in periods:
                yield KeyFields(
                    market=dataset.market,
                    data_type=dataset.data_type,
                    symbol=symbol,
                    interval=interval,
                    frequency=frequency,
                    start=start,
                    end=end,
                )


def _periods(frequency: Frequency, first: date, last: date) -> Iterator[tuple[date, date]]:
    """First and last day of each file that has any of these days."""
    day = first
    while day <= last:
        begin, following = (moment.date() for moment in period_bounds(period_name(day, _PERIODS[frequency])))
        yield begin, following - _DAY
        day = following
