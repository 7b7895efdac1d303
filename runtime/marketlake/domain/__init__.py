"""The values that the rooms of the runtime hand each other, and the protocol of a venue."""

from marketlake.domain.archive import ArchiveFile, Frequency, Selection, Series
from marketlake.domain.period import Period, period_bounds, period_name
from marketlake.domain.venue import (
    Availability,
    Dataset,
    KeyFields,
    KeyRange,
    PrefixPattern,
    SelectionError,
    UnknownVenueError,
    Venue,
    installed_venues,
    load_venue,
)

__all__ = [
    "ArchiveFile",
    "Availability",
    "Dataset",
    "Frequency",
    "KeyFields",
    "KeyRange",
    "Period",
    "PrefixPattern",
    "Selection",
    "SelectionError",
    "Series",
    "UnknownVenueError",
    "Venue",
    "installed_venues",
    "load_venue",
    "period_bounds",
    "period_name",
]
