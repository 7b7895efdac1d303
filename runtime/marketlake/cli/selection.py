"""Turn the options of a command into a selection; names are checked before anything is started."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from urllib.parse import urlsplit

from marketlake.cli.exit_codes import UsageError
from marketlake.domain.archive import Frequency, Selection
from marketlake.domain.venue import Dataset, Venue, load_venue, matching_datasets
from marketlake.settings import VenueEndpoint


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """The options that choose files, as typed."""

    venue: str
    market: str | None
    data_type: str | None
    interval: str | None
    symbols: Sequence[str]
    frequency: str | None
    start: datetime | None
    end: datetime | None


def select(options: SelectionOptions) -> tuple[Venue, Selection]:
    """Return the venue and the selection that the options mean.

    Raises:
        UnknownVenueError: no such venue.
        UsageError: something else does not exist there; the message lists what does, and the nearest.
    """
    venue = load_venue(options.venue)
    offered = [dataset for dataset in venue.datasets() if dataset.frequencies]
    if options.market is not None:
        _require("market", options.market, (dataset.market for dataset in offered), venue.name)
        offered = [dataset for dataset in offered if dataset.market == options.market]
    where = f"{venue.name} {options.market}" if options.market else venue.name
    if options.data_type is not None:
        neutral = {dataset.mapping.dataset for dataset in offered if dataset.mapping}
        _require("type", options.data_type, {*(dataset.data_type for dataset in offered), *neutral}, where)
        named = Selection(venue=venue.name, market=options.market, data_type=options.data_type)
        offered = [dataset for dataset in matching_datasets(venue, named) if dataset.frequencies]
        where = f"{where} {options.data_type}"
    if options.interval is not None:
        _require_interval(options.interval, offered, where)
    if options.start and options.end and options.start > options.end:
        raise UsageError(
            f"--from {options.start:%Y-%m-%d} is after --to {options.end:%Y-%m-%d}: exchange them."
        )
    for symbol in options.symbols:
        if not symbol or "/" in symbol or symbol != symbol.strip():
            raise UsageError(f"{symbol!r} is no symbol: write it as the venue does, e.g. BTCUSDT.")
    return venue, Selection(
        venue=venue.name,
        market=options.market,
        data_type=options.data_type,
        interval=options.interval,
        symbols=tuple(dict.fromkeys(options.symbols)),
        frequency=Frequency(options.frequency) if options.frequency else None,
        start=options.start.date() if options.start else None,
        end=options.end.date() if options.end else None,
    )


def endpoint_from(url: str, usual: VenueEndpoint) -> VenueEndpoint:
    """Return the endpoint that `--venue-endpoint` means: ``http(s)://host[:port][/bucket]``.

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
