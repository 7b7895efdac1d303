"""The protocol of a venue plug-in, and what it says about its archive.

A plug-in is a class without arguments, registered under the entry point group ``marketlake.venues``. It
knows the venue's datasets and how its object keys are built; it does no input or output. `docs/venues.md`
shows how to write one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from marketlake.domain.archive import Frequency, Selection
from marketlake.errors import MarketlakeError

if TYPE_CHECKING:  # the command's --help does without pydantic
    from marketlake.settings import VenueEndpoint

ENTRY_POINT_GROUP = "marketlake.venues"


class SelectionError(MarketlakeError):
    """The selection names something that the venue does not have; the message lists what it has."""

    code = "selection"


class UnknownVenueError(SelectionError):
    """No plug-in of that name is installed; the message lists those that are."""

    code = "unknown-venue"


class Availability(StrEnum):
    """Whether new files of a dataset still appear."""

    LIVE = "live"
    FROZEN = "frozen"
    """Still there, but nothing new comes."""
    WITHDRAWN = "withdrawn"
    """Taken away from its place; remains are elsewhere."""
    NEVER_PUBLISHED = "never published"
    """Often listed by others, never seen. Discovery reports it absent."""


class Listing(StrEnum):
    """How it is found out which files there are."""

    BUCKET = "bucket"
    """Folders of an S3 bucket are listed (ListObjects version 1)."""
    KEYS = "keys"
    """Nothing can be listed: a file of each selected series and day is asked for by its key."""


class Integrity(StrEnum):
    """How it is proven that a copy has the bytes that the venue published."""

    SIDECAR = "sidecar"
    """By a file beside each, which has its sha256."""
    ETAG = "etag"
    """By the ETag of the listing, which is the MD5 of the bytes. One of an object that came in parts (with a dash)
    proves nothing: such a file is taken as with :attr:`FIRST_SIGHT`."""
    FIRST_SIGHT = "first-sight"
    """By nothing but its length: the venue publishes no digest. Our own of the first copy is kept, and a later copy
    with another one is a new version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractMapping:
    """How the files of a data type become rows of a dataset that all venues share."""

    published: str
    """Name of the contract of its rows as published, which is the bronze table: ``binance_klines``."""
    dataset: str
    """Neutral id: name of the contract of its rows harmonised over venues, which is the silver table: ``candles``."""
    fixed: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Values of series columns that the data type itself says, e.g. ``price_kind``: ``trade``."""
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Expressions in Polars' SQL over the bronze table's columns, by column of the neutral dataset. A column that is
    not named has the bronze column of its name, or is null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One (market, data type) pair of a venue."""

    venue: str
    market: str
    data_type: str
    """As the venue writes it, e.g. ``aggTrades``."""
    frequencies: tuple[Frequency, ...]
    """Empty for what was never published."""
    intervals: tuple[str, ...]
    """Bar lengths as the venue writes them; empty where the type has none."""
    mapping: ContractMapping | None = None
    """None where its files are listed and not parsed."""
    availability: Availability
    first_seen: str | None
    """Day or month of the first known file, as far as known."""
    last_seen: str | None
    note: str
    """What is irregular about it, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFields:
    """What an object key says about the file."""

    market: str
    data_type: str
    symbol: str
    interval: str | None
    frequency: Frequency
    start: date
    """First UTC day covered."""
    end: date
    """Last UTC day covered, inclusive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixPattern:
    """A family of listing prefixes.

    `segments` are joined to a prefix; None stands for one folder name that has to be asked of the bucket (a
    listing with delimiter). ``("data/spot/daily/klines/", None, "1m/")`` means the 1m klines of all symbols.
    """

    segments: tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRange:
    """Where a listing of one folder may begin and end."""

    marker: str | None
    """Keys up to and including this one are of no interest. None: from the start."""
    last: str | None
    """Once a key is greater than this, no later key is of interest. None: to the end."""


class Venue(Protocol):
    """An exchange that publishes an archive."""

    name: str
    """Lower case, as in selections and object keys of the landing bucket."""
    default_endpoint: "VenueEndpoint"
    """The public archive."""
    listing: Listing
    integrity: Integrity

    def datasets(self) -> tuple[Dataset, ...]:
        """Return all datasets that are known, those never published included."""
        ...

    def patterns(self, selection: Selection) -> tuple[PrefixPattern, ...]:
        """Return where the selected files may lie; nothing is asked of a venue whose keys are built.

        Raises:
            SelectionError: the selection names a market, data type, interval or frequency that is not there.
        """
        ...

    def key_range(self, prefix: str, selection: Selection) -> KeyRange:
        """Return which part of a folder's listing the selected days need.

        Args:
            prefix: a prefix that came from a pattern, None segments filled in.
            selection: its `start` and `end` count.
        """
        ...

    def parse_key(self, key: str) -> KeyFields | None:
        """Return the fields of an archive file's key; None for sidecars and whatever else lies in the bucket."""
        ...

    def build_key(self, fields: KeyFields) -> str:
        """Return the regular key of such a file: where to look for one that no listing shows."""
        ...

    def sidecar_key(self, key: str) -> str | None:
        """Return the key of the checksum file that belongs to an archive file's key; None if there are none."""
        ...


def matching_datasets(venue: Venue, selection: Selection) -> tuple[Dataset, ...]:
    """Return the datasets that a selection's market and data type mean, in the order of the venue's catalogue.

    A data type is the venue's word (``klines``), or the neutral id of a dataset (``candles``), which may be several
    of the venue's data types. The venue's word goes first.
    """
    inside = [dataset for dataset in venue.datasets() if selection.market in (None, dataset.market)]
    if selection.data_type is None:
        return tuple(inside)
    named = [dataset for dataset in inside if dataset.data_type == selection.data_type]
    return tuple(named or (d for d in inside if d.mapping and d.mapping.dataset == selection.data_type))


def installed_venues() -> Mapping[str, type[Venue]]:
    """Return names and classes of all installed venue plug-ins."""
    return {point.name: point.load() for point in entry_points(group=ENTRY_POINT_GROUP)}


def load_venue(name: str) -> Venue:
    """Return the plug-in of that name.

    Raises:
        UnknownVenueError: none is installed under that name.
    """
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        raise UnknownVenueError(
            f"there is no venue {name!r}; installed are: {', '.join(sorted(points)) or 'none'}. "
            f"A further venue is a package with an entry point in {ENTRY_POINT_GROUP!r} (docs/venues.md)."
        )
    venue: Venue = points[name].load()()
    return venue
