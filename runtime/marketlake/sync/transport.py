"""Requests to a venue: anonymous, path-style, clear about what fails.

Listings are read with httpx, one request after the other. Files are read with aiohttp, many at once: for each request
it needs a tenth of httpx' processor time (13 ms against 1.3 ms a file of 60 kB, 32 in flight, on the same machine).

A venue is not trusted: redirects stay on its server, and what is read into memory is bounded while it comes.
"""

import contextlib
import functools
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from yarl import URL

from marketlake.settings import VenueEndpoint
from marketlake.sync.errors import (
    AccessDeniedError,
    NotPublishedError,
    OversizedAnswerError,
    RateLimitedError,
    RedirectRefusedError,
    RequestRefusedError,
    StalledError,
    VenueError,
    VenueUnavailableError,
    VenueUnreachableError,
)

USER_AGENT = "marketlake/0.1"
"""Some venues ban requests without one."""
HEADERS = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
"""What a venue compresses could inflate to anything."""
MOST_REDIRECTS = 3
"""Redirects that are followed for one request."""
_REDIRECTS = (301, 302, 303, 307, 308)
CONNECTION_ERRORS = (aiohttp.ClientError, TimeoutError)
"""What aiohttp raises when a connection fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a venue is waited for."""

    connect_s: float = 10.0
    read_s: float = 30.0
    """Seconds without a byte after which a connection counts as stalled."""
    body_s: float = 60.0
    """Seconds after which a checksum file or a listing page that still comes counts as stalled."""

    def to_httpx(self) -> httpx.Timeout:
        """Return the same limits in the HTTP client's words."""
        return httpx.Timeout(self.read_s, connect=self.connect_s, pool=None)


def venue_client(timeouts: Timeouts) -> aiohttp.ClientSession:
    """Return a client for venues, shared by the copies of one event loop; use it as a context manager."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),  # whoever copies bounds how many are in flight
        headers=HEADERS,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s, sock_read=timeouts.read_s),
        auto_decompress=False,
    )


@functools.lru_cache
def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a host (``HTTPS_PROXY``, ``NO_PROXY``)."""
    return None if proxy_bypass(host) else getproxies().get(scheme)


def object_url(endpoint: VenueEndpoint, key: str) -> str:
    """Return the path-style URL of an object; bytes other than plain letters and slashes are percent-encoded."""
    return f"{endpoint.endpoint.rstrip('/')}/{endpoint.bucket}/{quote(key, safe='/')}"


@contextlib.contextmanager
def stream(client: httpx.Client, method: str, url: str) -> Iterator[httpx.Response]:
    """Yield the response to a request, behind redirects within the venue's server; its body is still to be read.

    Raises:
        RedirectRefusedError: a redirect leads to another server, or there are too many.
    """
    request = client.build_request(method, url)
    for _ in range(MOST_REDIRECTS + 1):
        with contextlib.closing(client.send(request, stream=True)) as response:
            following = _redirected(response)
            if following is None:
                yield response
                return
        request = following
    raise _too_many_redirects(url, request.url)


@contextlib.asynccontextmanager
async def stream_async(client: aiohttp.ClientSession, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """:func:`stream` of a GET, for coroutines."""
    following = URL(url, encoded=True)
    for _ in range(MOST_REDIRECTS + 1):
        proxy = _proxy(following.scheme, following.host or "")
        async with client.get(following, allow_redirects=False, proxy=proxy) as response:
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                yield response
                return
            here, following = following, following.join(_location(location, url))
            _refuse_another_server(httpx.URL(str(here)), httpx.URL(str(following)))
    raise _too_many_redirects(url, following)


def _location(text: str, url: str) -> URL:
    try:
        return URL(text, encoded=True)
    except ValueError as error:
        raise RedirectRefusedError(
            f"{url}: the venue redirects to {text[:200]!r}, which is no address. Check the venue's endpoint in the "
            "settings; if it persists, report it to the venue."
        ) from error


def _redirected(response: httpx.Response) -> httpx.Request | None:
    """The request that a response redirects to, if it does."""
    following = response.next_request
    if following is not None:
        _refuse_another_server(response.url, following.url)
    return following


def _refuse_another_server(here: httpx.URL, following: httpx.URL) -> None:
    if not _same_server(here, following):
        raise RedirectRefusedError(
            f"{here}: the venue redirects to {following}, which is another server. It was not "
            "followed: if the archive has moved, name its new endpoint in the venue's settings; else something "
            "between here and the venue changes its answers."
        )


def _same_server(one: httpx.URL, other: httpx.URL) -> bool:
    """Scheme, host and port are the same, or differ by the change to https on the usual ports."""
    upgraded = (one.scheme, other.scheme) == ("http", "https") and one.port is other.port is None
    return one.host == other.host and (upgraded or (one.scheme, one.port) == (other.scheme, other.port))


def _too_many_redirects(url: str, last: httpx.URL | URL) -> RedirectRefusedError:
    return RedirectRefusedError(
        f"{url}: the venue redirects more than {MOST_REDIRECTS} times, at last to {last}. Check the venue's "
        "endpoint in the settings."
    )


class BoundedBody:
    """Holds a short body in memory while it comes, bounded in bytes and in time.

    Args:
        what: whose body it is (a URL).
        most: bytes that it may have.
        within_s: seconds that it may take.
    """

    def __init__(self, what: str, *, most: int, within_s: float) -> None:
        self._what = what
        self._most = most
        self._within = within_s
        self._until = time.monotonic() + within_s
        self._held = bytearray()

    def read(self, response: httpx.Response) -> bytes:
        """Return all of the response's body.

        Raises:
            OversizedAnswerError: it is longer; the rest was not read.
            StalledError: it takes longer.
            httpx.TransportError: the connection failed.
        """
        for chunk in response.iter_raw():
            self._take(chunk)
        return bytes(self._held)

    async def read_async(self, response: aiohttp.ClientResponse) -> bytes:
        """:meth:`read` for coroutines; a failed connection raises one of :data:`CONNECTION_ERRORS`."""
        async for chunk in response.content.iter_any():
            self._take(chunk)
        return bytes(self._held)

    def _take(self, chunk: bytes) -> None:
        self._held += chunk
        if len(self._held) > self._most:
            raise OversizedAnswerError(
                f"{self._what}: the answer is longer than {self._most} bytes, and none of this kind is. It begins "
                f"with {bytes(self._held[:60])!r}; the rest was not read. Check the venue's endpoint in the "
                "settings; if it persists, report it to the venue."
            )
        if time.monotonic() > self._until:
            raise StalledError(
                f"{self._what}: after {self._within:g} s only {len(self._held)} bytes had come, and not the "
                "last. It is tried again by itself; if it persists, look at the network or the venue's status page."
            )


def connection_error(error: Exception, what: str, timeouts: Timeouts) -> VenueError:
    """Return the error of a failed connection to `what` (a URL), whichever client raised it."""
    if isinstance(error, httpx.ReadTimeout | aiohttp.SocketTimeoutError):
        return StalledError(
            f"{what}: nothing came for {timeouts.read_s:g} s, the connection is stalled. "
            "It is tried again by itself; if it persists, look at the network or the venue's status page."
        )
    reason = str(error) or type(error).__name__
    return VenueUnreachableError(
        f"{what}: the connection failed ({reason}). It is tried again by itself; if it persists, "
        "check the venue's endpoint in the settings and the network."
    )


def accept(status: int, headers: Mapping[str, str], what: str) -> None:
    """Raise the error that a status other than 200 and 206 means for `what` (a URL)."""
    if status in (200, 206):
        return
    if status in (401, 403):
        raise AccessDeniedError(
            f"{what}: HTTP {status}, access denied. The venue does not let this address or identity read "
            "it: check the venue's endpoint and bucket in the settings; some venues answer so to banned "
            "addresses, or for keys that do not exist."
        )
    if status in (404, 410):
        raise NotPublishedError(
            f"{what}: HTTP {status}, there is no such object. It was withdrawn since it was listed, or the "
            "bucket's name in the settings is wrong: discover again."
        )
    if status == 429:
        raise RateLimitedError(
            f"{what}: HTTP 429, too many requests. Lower the number of workers for this venue.",
            retry_after=_retry_after(headers),
        )
    if status >= 500:
        raise VenueUnavailableError(
            f"{what}: HTTP {status}, the venue failed. It is tried again by itself; if it persists, wait for "
            "the venue to recover and collect again.",
            retry_after=_retry_after(headers),
        )
    raise RequestRefusedError(
        f"{what}: HTTP {status}, the request was refused. Check the venue's endpoint in the settings: it has "
        "to be an S3 service that is read path-style and anonymously."
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or an HTTP date (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds()) if when.tzinfo else None
