"""The values that the rooms of the runtime hand each other, and the protocol of a venue."""

from marketlake.domain.archive import ArchiveFile, Frequency, Selection, Series
from marketlake.domain.period import Period, period_bounds, period_name
from marketlake.domain.venue import (
    Availability,
    ContractMapping,
    Dataset,
    Integrity,
    KeyFields,
    KeyRange,
    Listing,
    PrefixPattern,
    SelectionError,
    UnknownVenueError,
    Venue,
    installed_venues,
    load_venue,
    matching_datasets,
)

__all__ = [
    "ArchiveFile",
    "Availability",
    "ContractMapping",
    "Dataset",
    "Frequency",
    "Integrity",
    "KeyFields",
    "KeyRange",
    "Listing",
    "Period",
    "PrefixPattern",
    "Selection",
    "SelectionError",
    "Series",
    "UnknownVenueError",
    "Venue",
    "installed_venues",
    "load_venue",
    "matching_datasets",
    "period_bounds",
    "period_name",
]
