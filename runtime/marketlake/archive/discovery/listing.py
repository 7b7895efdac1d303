"""Read the venues' buckets by ListObjects version 1, anonymous and path-style.

Protocol: the S3 API reference, ListObjects. `NextMarker` comes only with a delimiter; otherwise the last key
is the next marker. At most 1000 keys come at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError

import httpx
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from marketlake.infrastructure.telemetry import metrics
from marketlake.retry import Backoff, FailedAttempt, log_failure, retry
from marketlake.settings import VenueEndpoint
from marketlake.sync.errors import NotPublishedError, VenueError
from marketlake.sync.transport import (
    HEADERS,
    BoundedBody,
    Timeouts,
    accept,
    connection_error,
    object_url,
    stream,
)

PAGE = 1000
"""The most keys that S3 returns at once."""
LONGEST_PAGE = 8 * 1024 * 1024
"""Bytes. A key has at most 1024, and an entry half as many besides."""


class ListingError(VenueError):
    """A listing is no complete ListObjects document."""

    code = "listing-broken"
    transient = True


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One key of a listing."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """Without quotes."""
    last_modified: datetime
    """UTC."""


@dataclass(frozen=True, slots=True)
class ListingPage:
    """One answer to ListObjects."""

    objects: tuple[ListedObject, ...]
    folders: tuple[str, ...]
    next_marker: str | None
    """None on the last page."""


class BucketListing:
    """Reads a bucket's listings; use it as a context manager."""

    def __init__(self, endpoint: VenueEndpoint, backoff: Backoff, timeouts: Timeouts) -> None:
        self._endpoint = endpoint
        self._backoff = backoff
        self._timeouts = timeouts
        self._client = httpx.Client(headers=HEADERS, timeout=timeouts.to_httpx())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def objects(
        self, prefix: str, *, marker: str | None = None, last: str | None = None
    ) -> Iterator[ListedObject]:
        """Yield the objects whose keys begin with `prefix`, in key order.

        Args:
            prefix: as in S3.
            marker: only greater keys come.
            last: no greater keys come, and no page beyond it is asked for.

        Raises:
            VenueError: the venue refused, or failed more often than the back-off allows.
        """
        for page in self._pages(prefix, marker, None):
            for listed in page.objects:
                if last is not None and listed.key > last:
                    return
                if listed.key.startswith(
                    prefix
                ):  # a store that normalises keys may answer for another prefix
                    yield listed

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the prefixes one level below `prefix`, with their final slash."""
        for page in self._pages(prefix, None, "/"):
            yield from (folder for folder in page.folders if folder.startswith(prefix))

    def find(self, key: str) -> ListedObject | None:
        """Return what a HEAD request says about one key; None if there is no such object."""
        url = object_url(self._endpoint, key)
        try:
            headers = retry(lambda: self._head(url), backoff=self._backoff, tell=_tell)
        except NotPublishedError:
            return None
        return ListedObject(
            key=key,
            size=int(headers["content-length"]),
            etag=headers.get("etag", "").strip('"'),
            last_modified=parsedate_to_datetime(headers["last-modified"]).astimezone(UTC),
        )

    def _pages(self, prefix: str, marker: str | None, delimiter: str | None) -> Iterator[ListingPage]:
        while True:
            page = retry(partial(self._page, prefix, marker, delimiter), backoff=self._backoff, tell=_tell)
            yield page
            if page.next_marker is None:
                return
            if marker is not None and page.next_marker.encode() <= marker.encode():
                raise ListingError(
                    f"{self._endpoint.endpoint}, bucket {self._endpoint.bucket}: the listing of {prefix!r} goes in "
                    f"circles: behind {marker!r} it goes on at {page.next_marker!r}. Check the venue's endpoint in "
                    "the settings: it has to be an S3 service, whose keys come in order."
                )
            marker = page.next_marker

    def _page(self, prefix: str, marker: str | None, delimiter: str | None) -> ListingPage:
        query = {"prefix": prefix, "max-keys": str(PAGE), "marker": marker, "delimiter": delimiter}
        pairs = [f"{name}={quote(value, safe='')}" for name, value in query.items() if value is not None]
        url = f"{object_url(self._endpoint, '')}?{'&'.join(pairs)}"
        with self._response("GET", url) as response:
            body = BoundedBody(url, most=LONGEST_PAGE, within_s=self._timeouts.body_s).read(response)
        return parse_page(body, url)

    def _head(self, url: str) -> httpx.Headers:
        with self._response("HEAD", url) as response:
            return response.headers

    @contextmanager
    def _response(self, method: str, url: str) -> Iterator[httpx.Response]:
        try:
            with stream(self._client, method, url) as response:
                accept(response.status_code, response.headers, url)
                yield response
        except httpx.TransportError as error:
            raise connection_error(error, url, self._timeouts) from error


def _tell(failed: FailedAttempt) -> None:
    metrics.retries().add(1, {"code": getattr(failed.error, "code", "")})
    log_failure(failed)


def parse_page(body: bytes, url: str) -> ListingPage:
    """Return the page of one ListBucketResult document.

    Raises:
        ListingError: the document is cut off, or is something else.
    """
    try:
        root = fromstring(body)
    except (ParseError, DefusedXmlException) as error:
        raise ListingError(
            f"{url}: the listing is cut off or no XML ({error}; {len(body)} bytes came). It is asked for "
            "again by itself; if it persists, something between here and the venue changes its answers."
        ) from error
    if _local(root) != "ListBucketResult":
        raise ListingError(
            f"{url}: a <{_local(root)}> document came instead of a <ListBucketResult>. Check the venue's "
            "endpoint and bucket in the settings: it has to be an S3 service, read path-style."
        )
    objects = tuple(_object(child) for child in root if _local(child) == "Contents")
    folders = tuple(
        text for child in root if _local(child) == "CommonPrefixes" for text in _texts(child).values()
    )
    fields = _texts(root)
    if fields.get("IsTruncated") != "true":
        return ListingPage(objects, folders, None)
    next_marker = fields.get("NextMarker") or (objects[-1].key if objects else None)
    if next_marker is None:
        raise ListingError(
            f"{url}: the listing says that more follows, but names no key to go on from. Try later."
        )
    return ListingPage(objects, folders, next_marker)


def _object(element: Element) -> ListedObject:
    fields = _texts(element)
    return ListedObject(
        key=fields["Key"],
        size=int(fields["Size"]),
        etag=fields.get("ETag", "").strip('"'),
        last_modified=datetime.fromisoformat(fields["LastModified"]).astimezone(UTC),
    )


def _texts(element: Element) -> dict[str, str]:
    return {_local(child): child.text or "" for child in element}


def _local(element: Element) -> str:
    """Return the tag without its namespace, in which S3 and compatible stores differ."""
    return element.tag.rpartition("}")[2]
