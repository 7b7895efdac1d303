"""The nouns of an exchange archive, shared by every venue plug-in."""

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum


class Frequency(StrEnum):
    """How much time one file covers."""

    DAILY = "daily"
    MONTHLY = "monthly"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which files of a venue are meant. None, or an empty tuple, means all."""

    venue: str
    market: str | None = None
    data_type: str | None = None
    """As the venue writes it, e.g. ``aggTrades``, or the neutral id of a dataset, e.g. ``agg_trades``."""
    interval: str | None = None
    symbols: tuple[str, ...] = ()
    frequency: Frequency | None = None
    start: date | None = None
    """First UTC day, inclusive."""
    end: date | None = None
    """Last UTC day, inclusive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """One published file, as a listing showed it."""

    venue: str
    market: str
    data_type: str
    symbol: str
    interval: str | None
    frequency: Frequency
    start: date
    """First UTC day that the file covers."""
    end: date
    """Last UTC day that the file covers, inclusive."""
    key: str
    """Object key in the venue's bucket."""
    size: int
    """Bytes."""
    etag: str
    """As listed, without quotes."""
    last_modified: datetime
    """UTC."""
    sidecar_key: str | None = field(default=None)
    """Key of the checksum file, None where the listing has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One symbol's rows of one data type (and interval) at one market of a venue."""

    venue: str
    market: str
    data_type: str
    symbol: str
    interval: str | None
