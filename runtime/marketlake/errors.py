"""What can go wrong between a venue's archive and the lake, one class per cause.

Every message says what happened, with which value, and what to do next. `code` is stable: it is stored in
the ledger, put on dead letters and counted in metrics. `retriable` says whether the same request may succeed
later without anybody doing anything.
"""

from typing import ClassVar


class SyncError(Exception):
    """A file, or a listing, could not be brought in."""

    code: ClassVar[str] = "sync"
    retriable: ClassVar[bool] = False


class VenueError(SyncError):
    """The venue did not serve what was asked for."""

    code: ClassVar[str] = "venue"


class AccessDeniedError(VenueError):
    """HTTP 401 or 403."""

    code: ClassVar[str] = "access-denied"


class NotPublishedError(VenueError):
    """HTTP 404 or 410: the venue has no such object."""

    code: ClassVar[str] = "not-published"


class RequestRefusedError(VenueError):
    """Any other HTTP 4xx: asking again the same way cannot help."""

    code: ClassVar[str] = "request-refused"


class RedirectRefusedError(VenueError):
    """A redirect that leads to another server, or one too many."""

    code: ClassVar[str] = "redirect-refused"


class OversizedAnswerError(VenueError):
    """A checksum file or a listing page that is longer than any can be."""

    code: ClassVar[str] = "oversized-answer"


class RateLimitedError(VenueError):
    """HTTP 429, still after the waits that the venue asked for."""

    code: ClassVar[str] = "rate-limited"
    retriable: ClassVar[bool] = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the venue asked to wait; None if it did not say."""


class VenueUnavailableError(VenueError):
    """HTTP 5xx, still after several attempts."""

    code: ClassVar[str] = "venue-unavailable"
    retriable: ClassVar[bool] = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the venue asked to wait; None if it did not say."""


class VenueUnreachableError(VenueError):
    """No connection to the venue, or it broke off."""

    code: ClassVar[str] = "venue-unreachable"
    retriable: ClassVar[bool] = True


class StalledError(VenueError):
    """The venue sent nothing for longer than the read time-out."""

    code: ClassVar[str] = "stalled"
    retriable: ClassVar[bool] = True


class ListingError(VenueError):
    """A listing that is no complete ListObjects document, still after several attempts."""

    code: ClassVar[str] = "listing-broken"
    retriable: ClassVar[bool] = True


class SidecarMissingError(SyncError):
    """The venue publishes no checksum for the file."""

    code: ClassVar[str] = "sidecar-missing"


class SidecarInvalidError(SyncError):
    """The checksum file is not `<sha256>  <name>` of this file."""

    code: ClassVar[str] = "sidecar-invalid"


class ChecksumMismatchError(SyncError):
    """The bytes are not those that the venue's checksum names."""

    code: ClassVar[str] = "checksum-mismatch"

    def __init__(self, message: str, *, expected: str, got: str) -> None:
        super().__init__(message)
        self.expected = expected
        self.got = got


class TruncatedError(SyncError):
    """Fewer or more bytes came than the venue announced."""

    code: ClassVar[str] = "truncated"
    retriable: ClassVar[bool] = True


class EmptyFileError(SyncError):
    """The object, or the CSV inside it, holds no byte."""

    code: ClassVar[str] = "empty-file"


class HtmlInsteadOfZipError(SyncError):
    """A web page came where a zip was asked for."""

    code: ClassVar[str] = "html-instead-of-zip"


class NotAZipError(SyncError):
    """The object is no zip archive that can be read."""

    code: ClassVar[str] = "not-a-zip"


class MultipleMembersError(SyncError):
    """The zip does not hold exactly one member."""

    code: ClassVar[str] = "multiple-members"


class InflatedTooLargeError(SyncError):
    """The member inflates to more than the settings allow: a zip bomb, or a file larger than was foreseen."""

    code: ClassVar[str] = "inflated-too-large"


class CorruptZipError(SyncError):
    """The member does not inflate to what the zip's directory says."""

    code: ClassVar[str] = "corrupt-zip"


class SchemaChangedError(SyncError):
    """No row of the file has the columns that its data type is declared with."""

    code: ClassVar[str] = "schema-changed"


class UnsupportedDatasetError(SyncError):
    """Files of this kind are copied and catalogued, but no parsing is declared for them."""

    code: ClassVar[str] = "unsupported-dataset"


class FileLockedError(SyncError):
    """Another session held the file's lock for too long."""

    code: ClassVar[str] = "file-locked"


class StorageFullError(SyncError):
    """The object store has no room left."""

    code: ClassVar[str] = "storage-full"
    retriable: ClassVar[bool] = True


class StorageError(SyncError):
    """The object store failed in some other way."""

    code: ClassVar[str] = "storage"
    retriable: ClassVar[bool] = True


class CommitConflictError(SyncError):
    """Other writers kept changing the same part of a table."""

    code: ClassVar[str] = "commit-conflict"
    retriable: ClassVar[bool] = True
