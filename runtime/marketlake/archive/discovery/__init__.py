"""Which files a venue publishes: listing, discovery and the catalogue."""

from marketlake.archive.discovery.catalogue import Catalogue, DayRange, Holding
from marketlake.archive.discovery.discover import absent_datasets, discover
from marketlake.archive.discovery.listing import ListingError

__all__ = [
    "Catalogue",
    "DayRange",
    "Holding",
    "ListingError",
    "absent_datasets",
    "discover",
]
