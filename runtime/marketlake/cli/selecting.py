"""From what a person typed to a selection: names are checked before anything is started."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from urllib.parse import urlsplit

from marketlake.cli.outcome import UsageError
from marketlake.domain.archive import Frequency, Selection
from marketlake.domain.venue import Dataset, Venue, load_venue
from marketlake.settings import VenueEndpoint


@dataclass(frozen=True, slots=True)
class Wish:
    """The options that choose files, as typed."""

    venue: str
    market: str | None
    data_type: str | None
    interval: str | None
    symbols: Sequence[str]
    frequency: str | None
    start: datetime | None
    end: datetime | None


def select(wish: Wish) -> tuple[Venue, Selection]:
    """The venue and the selection that a person means.

    Raises:
        UnknownVenueError: no such venue.
        UsageError: something else does not exist there; the message lists what does, and the nearest.
    """
    venue = load_venue(wish.venue)
    offered = [dataset for dataset in venue.datasets() if dataset.frequencies]
    if wish.market is not None:
        _require("market", wish.market, (dataset.market for dataset in offered), venue.name)
        offered = [dataset for dataset in offered if dataset.market == wish.market]
    where = f"{venue.name} {wish.market}" if wish.market else venue.name
    if wish.data_type is not None:
        _require("type", wish.data_type, (dataset.data_type for dataset in offered), where)
        offered = [dataset for dataset in offered if dataset.data_type == wish.data_type]
        where = f"{where} {wish.data_type}"
    if wish.interval is not None:
        _require_interval(wish.interval, offered, where)
    if wish.start and wish.end and wish.start > wish.end:
        raise UsageError(f"--from {wish.start:%Y-%m-%d} is after --to {wish.end:%Y-%m-%d}: exchange them.")
    for symbol in wish.symbols:
        if not symbol or "/" in symbol or symbol != symbol.strip():
            raise UsageError(f"{symbol!r} is no symbol: write it as the venue does, e.g. BTCUSDT.")
    return venue, Selection(
        venue=venue.name,
        market=wish.market,
        data_type=wish.data_type,
        interval=wish.interval,
        symbols=tuple(dict.fromkeys(wish.symbols)),
        frequency=Frequency(wish.frequency) if wish.frequency else None,
        start=wish.start.date() if wish.start else None,
        end=wish.end.date() if wish.end else None,
    )


def endpoint_from(url: str, usual: VenueEndpoint) -> VenueEndpoint:
    """The endpoint that `--venue-endpoint` means: ``http(s)://host[:port][/bucket]``.

    Args:
        url: as typed.
        usual: gives the bucket if the URL names none.

    Raises:
        UsageError: it is no such URL.
    """
    parts = urlsplit(url)
    path = parts.path.strip("/")
    try:
        plain = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        plain = False
    if not plain or "/" in path or parts.query or parts.fragment or parts.username or parts.password:
        raise UsageError(
            f"--venue-endpoint {url!r} is no address of an S3 service: write http(s)://HOST[:PORT][/BUCKET], "
            f"e.g. {usual.endpoint}/{usual.bucket}. Archives are read anonymously: no user, no query."
        )
    return VenueEndpoint(endpoint=f"{parts.scheme}://{parts.netloc}", bucket=path or usual.bucket)


def _require(noun: str, name: str, offered: Iterable[str], where: str) -> None:
    names = sorted(set(offered))
    if name not in names:
        raise UsageError(f"{where} has no {noun} {name!r}{_nearest(name, names)} It has: {', '.join(names)}.")


def _require_interval(interval: str, offered: Sequence[Dataset], where: str) -> None:
    names = list(dict.fromkeys(name for dataset in offered for name in dataset.intervals))
    if not names:
        raise UsageError(f"{where} has no intervals: leave --interval {interval} out.")
    if interval not in names:
        raise UsageError(
            f"{where} has no interval {interval!r}{_nearest(interval, names)} It has: {', '.join(names)}."
        )


def _nearest(name: str, names: Sequence[str]) -> str:
    lowered = {candidate.lower(): candidate for candidate in names}
    found = [repr(lowered[match]) for match in get_close_matches(name.lower(), lowered, n=2, cutoff=0.6)]
    return f"; did you mean {' or '.join(found)}?" if found else "."
