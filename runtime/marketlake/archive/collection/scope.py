"""Which datasets a selection means: one selection for each, so that each is a step that a person sees."""

from dataclasses import replace

from marketlake.domain.archive import Selection
from marketlake.domain.venue import SelectionError, Venue
from marketlake.pipeline.contracts.tables import is_supported


def datasets(venue: Venue, selection: Selection) -> tuple[Selection, ...]:
    """One selection per dataset that can be parsed and fits, in the order of the venue's catalogue.

    Raises:
        SelectionError: nothing fits, or the wanted data type is one whose files cannot be parsed.
    """
    published = [dataset for dataset in venue.datasets() if dataset.frequencies]
    fitting = [
        dataset
        for dataset in published
        if selection.market in (None, dataset.market)
        and selection.data_type in (None, dataset.data_type)
        and (selection.interval is None or selection.interval in dataset.intervals)
        and (selection.frequency is None or selection.frequency in dataset.frequencies)
    ]
    parsed = [dataset for dataset in fitting if is_supported(dataset.data_type)]
    if not parsed:
        catalogued = ", ".join(sorted({dataset.data_type for dataset in fitting}))
        possible = sorted({dataset.data_type for dataset in published if is_supported(dataset.data_type)})
        raise SelectionError(
            f"{catalogued or 'what was selected'} of {venue.name} cannot be collected: "
            f"{'it is catalogued, but not parsed yet' if catalogued else 'there is no such dataset'}. "
            f"Types that can be: {', '.join(possible)}."
        )
    return tuple(replace(selection, market=dataset.market, data_type=dataset.data_type) for dataset in parsed)
