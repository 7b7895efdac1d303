"""Requests to a venue: anonymous, path-style, clear about what fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx

from marketlake.settings import VenueEndpoint
from marketlake.sync.errors import (
    AccessDeniedError,
    NotPublishedError,
    RateLimitedError,
    RequestRefusedError,
    StalledError,
    VenueError,
    VenueUnavailableError,
    VenueUnreachableError,
)

USER_AGENT = "marketlake/0.1"
"""Some venues ban requests without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a venue is waited for."""

    connect_s: float = 10.0
    read_s: float = 30.0
    """Seconds without a byte after which a connection counts as stalled."""

    def to_httpx(self) -> httpx.Timeout:
        """Return the same limits in the HTTP client's words."""
        return httpx.Timeout(self.read_s, connect=self.connect_s, pool=None)


def venue_client(timeouts: Timeouts) -> httpx.AsyncClient:
    """Connections to venues, to be shared by the copies of one event loop; use it as a context manager."""
    return httpx.AsyncClient(
        headers={"User-Agent": USER_AGENT}, timeout=timeouts.to_httpx(), follow_redirects=True
    )


def object_url(endpoint: VenueEndpoint, key: str) -> str:
    """Path-style URL of an object; each byte that is no plain letter is percent-encoded, slashes are kept."""
    return f"{endpoint.endpoint.rstrip('/')}/{endpoint.bucket}/{quote(key, safe='/')}"


def connection_error(error: httpx.TransportError, what: str, timeouts: Timeouts) -> VenueError:
    """What a failed connection means for `what` (a URL)."""
    if isinstance(error, httpx.ReadTimeout):
        return StalledError(
            f"{what}: nothing came for {timeouts.read_s:g} s, the connection is stalled. "
            "It is tried again by itself; if it persists, look at the network or the venue's status page."
        )
    reason = str(error) or type(error).__name__
    return VenueUnreachableError(
        f"{what}: the connection failed ({reason}). It is tried again by itself; if it persists, "
        "check the venue's endpoint in the settings and the network."
    )


def accept(response: httpx.Response, what: str) -> None:
    """Let the statuses 200 and 206 pass; raise the error that any other means for `what` (a URL)."""
    status = response.status_code
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
            retry_after=_retry_after(response.headers),
        )
    if status >= 500:
        raise VenueUnavailableError(
            f"{what}: HTTP {status}, the venue failed. It is tried again by itself; if it persists, wait for "
            "the venue to recover and collect again.",
            retry_after=_retry_after(response.headers),
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
