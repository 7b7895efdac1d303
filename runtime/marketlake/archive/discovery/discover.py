"""Discovery: which files of a selection a venue's bucket holds."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Self, TypeVar

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from marketlake.archive.discovery.by_key import possible_files
from marketlake.archive.discovery.listing import BucketListing, ListedObject
from marketlake.domain.archive import ArchiveFile, Frequency, Selection
from marketlake.domain.venue import (
    Availability,
    Dataset,
    KeyFields,
    Listing,
    PrefixPattern,
    Venue,
    matching_datasets,
)
from marketlake.retry import Backoff
from marketlake.settings import VenueEndpoint
from marketlake.sync.errors import AccessDeniedError, VenueError
from marketlake.sync.transport import Timeouts

BACKOFF = Backoff(attempts=5)
AT_ONCE = 8
"""Requests for listings that are made at once."""
PROBED_DAYS = 3
"""Listings have been seen stale: that many latest days of a live series are looked up by key if they are missing."""
LIVE_WITHIN = timedelta(days=7)
"""A daily series whose last listed file is older counts as ended (delisted), and is not probed."""

Item = TypeVar("Item")
Result = TypeVar("Result")
_DAY = timedelta(days=1)
_tracer = trace.get_tracer("marketlake")


def discover(
    venue: Venue,
    endpoint: VenueEndpoint,
    selection: Selection,
    *,
    backoff: Backoff = BACKOFF,
    timeouts: Timeouts | None = None,
    today: date | None = None,
) -> Iterator[ArchiveFile]:
    """Yield the selected files that the venue has, each once: folder by folder and in key order where it is listed.

    A file whose checksum file was not listed comes with `sidecar_key` None. Files that overlap the selected
    days count as selected, so a monthly file comes for any of its days.

    Args:
        venue: the plug-in.
        endpoint: where to list.
        selection: None and empty tuples mean all; symbols and intervals are then asked of the bucket. A venue that
            cannot be listed wants symbols and a first day.
        backoff: how often a request that may still succeed is made again.
        timeouts: how long the venue is waited for; the defaults if None.
        today: for tests; the current UTC day if None.

    Raises:
        SelectionError: the selection names what the venue does not have.
        VenueError: the venue refused, or failed more often than `backoff` allows.
    """
    parts = _in_venue_words(venue, selection)
    today = today or datetime.now(UTC).date()
    if venue.listing is Listing.KEYS:
        possible, patterns = possible_files(venue, parts, today), []
    else:
        possible, patterns = [], [pattern for part in parts for pattern in venue.patterns(part)]
    widened = replace(selection, start=selection.start and selection.start - LIVE_WITHIN)
    # Not made the current span: while the caller looks at a file, its own spans would become this one's.
    span = _tracer.start_span("discover", attributes=_attributes(endpoint, selection))
    seen: set[str] = set()
    denied: list[AccessDeniedError] = []
    try:
        with BucketListing(endpoint, backoff, timeouts or Timeouts()) as listing, _Ahead() as ahead:

            def of_folder(prefix: str) -> list[ArchiveFile]:
                key_range = venue.key_range(prefix, widened)
                listed = listing.objects(prefix, marker=key_range.marker, last=key_range.last)
                files = list(_files(venue, listed))
                until = min(today, (selection.end or today) + _DAY)
                return [*files, *_unlisted(venue, listing, files, until)]

            def of_key(fields: KeyFields) -> list[ArchiveFile]:
                key = venue.build_key(fields)
                try:
                    found = listing.find(key)
                except AccessDeniedError as error:
                    denied.append(error)  # how some stores say to the anonymous that a key does not exist
                    return []
                return (
                    [replace(_file(venue, found, fields), sidecar_key=venue.sidecar_key(key))]
                    if found
                    else []
                )

            folders = ahead.map(of_folder, _prefixes(listing, ahead, patterns))
            for files in chain(folders, ahead.map(of_key, possible)):
                for file in files:
                    if file.key not in seen and _selected(file, selection):
                        seen.add(file.key)
                        yield file
            if denied and not seen:
                raise denied[0]
    except VenueError as error:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, error.code))
        raise
    finally:
        span.set_attribute("marketlake.files", len(seen))
        span.end()


def absent_datasets(venue: Venue, selection: Selection) -> tuple[Dataset, ...]:
    """Return the selected datasets that the venue never published, though others often list them."""
    return tuple(
        dataset
        for dataset in matching_datasets(venue, selection)
        if dataset.availability is Availability.NEVER_PUBLISHED
    )


def _in_venue_words(venue: Venue, selection: Selection) -> list[Selection]:
    """The selection once for each of the venue's data types that its own means."""
    if selection.data_type is None:
        return [selection]
    words = dict.fromkeys(dataset.data_type for dataset in matching_datasets(venue, selection))
    return [replace(selection, data_type=word) for word in words] or [selection]


def _attributes(endpoint: VenueEndpoint, selection: Selection) -> dict[str, str]:
    fields = {
        "marketlake.venue": selection.venue,
        "marketlake.market": selection.market,
        "marketlake.data_type": selection.data_type,
        "aws.s3.bucket": endpoint.bucket,
        "url.full": endpoint.endpoint,
    }
    return {name: value for name, value in fields.items() if value is not None}


class _Ahead:
    """Makes requests ahead of who wants their results, some at once; results come in order. A context manager."""

    def __init__(self) -> None:
        self._requests = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="listing")
        self._steps = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="discovery")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._steps.shutdown(cancel_futures=True)
        self._requests.shutdown(cancel_futures=True)

    def map(self, request: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result of a request for each item; it must not wait for another one."""
        return self._mapped(self._requests, request, items)

    def chain(self, step: Callable[[Item], Iterable[Result]], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of a step for each item, which may make requests itself."""
        for results in self._mapped(self._steps, lambda item: list(step(item)), items):
            yield from results

    @staticmethod
    def _mapped(
        pool: ThreadPoolExecutor, act: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(act, item))
            if len(waiting) == AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _prefixes(listing: BucketListing, ahead: _Ahead, patterns: Sequence[PrefixPattern]) -> Iterator[str]:
    """The folders that the patterns mean; those of a single one while others are still looked for."""
    if len(patterns) == 1:
        return _resolve(listing, ahead, patterns[0])
    return ahead.chain(partial(_resolve, listing, ahead), patterns)


def _resolve(listing: BucketListing, ahead: _Ahead, pattern: PrefixPattern) -> Iterator[str]:
    prefixes: Iterable[str] = [""]
    for segment in pattern.segments:
        prefixes = _extend(listing, ahead, prefixes, segment)
    yield from prefixes


def _extend(
    listing: BucketListing, ahead: _Ahead, prefixes: Iterable[str], segment: str | None
) -> Iterator[str]:
    if segment is not None:
        yield from (prefix + segment for prefix in prefixes)
        return
    for folders in ahead.map(lambda prefix: list(listing.folders(prefix)), prefixes):
        yield from folders


def _files(venue: Venue, listed: Iterable[ListedObject]) -> Iterator[ArchiveFile]:
    """Pair archive files with their sidecars: a sidecar's key follows its file's, with few keys between."""
    waiting: dict[str, ArchiveFile] = {}
    for item in listed:
        if fields := venue.parse_key(item.key):
            file, sidecar = _file(venue, item, fields), venue.sidecar_key(item.key)
            if sidecar is None:
                yield file
            else:
                waiting[sidecar] = file
        elif listed_before := waiting.pop(item.key, None):
            yield replace(listed_before, sidecar_key=item.key)
    yield from waiting.values()


def _file(venue: Venue, listed: ListedObject, fields: KeyFields) -> ArchiveFile:
    return ArchiveFile(
        venue=venue.name,
        market=fields.market,
        data_type=fields.data_type,
        symbol=fields.symbol,
        interval=fields.interval,
        frequency=fields.frequency,
        start=fields.start,
        end=fields.end,
        key=listed.key,
        size=listed.size,
        etag=listed.etag,
        last_modified=listed.last_modified,
    )


def _unlisted(
    venue: Venue, listing: BucketListing, series: list[ArchiveFile], until: date
) -> Iterator[ArchiveFile]:
    """Yield files of the last days before `until` that a stale listing does not show, found by their sidecars."""
    if not series or (newest := max(series, key=lambda file: file.end)).frequency is not Frequency.DAILY:
        return
    if until - newest.end > LIVE_WITHIN:
        return
    days = (until - timedelta(days=back) for back in range(PROBED_DAYS, 0, -1))
    for day in (day for day in days if day > newest.end):
        fields = KeyFields(
            market=newest.market,
            data_type=newest.data_type,
            symbol=newest.symbol,
            interval=newest.interval,
            frequency=Frequency.DAILY,
            start=day,
            end=day,
        )
        key = venue.build_key(fields)
        sidecar = venue.sidecar_key(key)
        try:
            if (sidecar is None or listing.find(sidecar)) and (found := listing.find(key)):
                yield replace(_file(venue, found, fields), sidecar_key=sidecar)
        except AccessDeniedError:
            return  # how some stores say to the anonymous that a key does not exist


def _selected(file: ArchiveFile, selection: Selection) -> bool:
    return (
        (not selection.symbols or file.symbol in selection.symbols)
        and (selection.start is None or file.end >= selection.start)
        and (selection.end is None or file.start <= selection.end)
    )
