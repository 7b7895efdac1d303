"""What goes wrong between a venue's archive and the landing bucket, one class per cause."""

from marketlake.errors import MarketlakeError


class SyncError(MarketlakeError):
    """A file, or a listing, could not be brought in."""

    code = "sync"


class VenueError(SyncError):
    """The venue did not serve what was asked for."""

    code = "venue"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the venue asked to wait; None if it did not say."""


class AccessDeniedError(VenueError):
    """HTTP 401 or 403."""

    code = "access-denied"


class NotPublishedError(VenueError):
    """HTTP 404 or 410: the venue has no such object."""

    code = "not-published"


class RequestRefusedError(VenueError):
    """Any other HTTP 4xx: asking again the same way cannot help."""

    code = "request-refused"


class RedirectRefusedError(VenueError):
    """A redirect leads to another server, or is one too many."""

    code = "redirect-refused"


class OversizedAnswerError(VenueError):
    """A checksum file or a listing page is longer than any can be."""

    code = "oversized-answer"


class RateLimitedError(VenueError):
    """HTTP 429: too many requests."""

    code = "rate-limited"
    transient = True


class VenueUnavailableError(VenueError):
    """HTTP 5xx: the venue failed."""

    code = "venue-unavailable"
    transient = True


class VenueUnreachableError(VenueError):
    """No connection to the venue, or it broke off."""

    code = "venue-unreachable"
    transient = True


class StalledError(VenueError):
    """The venue sent nothing for longer than the read time-out."""

    code = "stalled"
    transient = True


class LandingMissingError(SyncError):
    """Landing does not hold what was copied into it."""

    code = "landing-missing"


class SidecarMissingError(SyncError):
    """The venue publishes no checksum for the file."""

    code = "sidecar-missing"


class SidecarInvalidError(SyncError):
    """The checksum file is not `<sha256>  <name>` of this file."""

    code = "sidecar-invalid"


class ChecksumMismatchError(SyncError):
    """The bytes are not those that the venue's checksum names."""

    code = "checksum-mismatch"

    def __init__(self, message: str, *, expected: str, got: str) -> None:
        super().__init__(message)
        self.expected = expected
        self.got = got


class TruncatedError(SyncError):
    """Fewer or more bytes came than the venue announced."""

    code = "truncated"
    transient = True


class EmptyFileError(SyncError):
    """The object, or the CSV inside it, holds no byte."""

    code = "empty-file"


class HtmlInsteadOfZipError(SyncError):
    """A web page came where a zip was asked for."""

    code = "html-instead-of-zip"


class NotAZipError(SyncError):
    """The object is no zip archive that can be read."""

    code = "not-a-zip"
