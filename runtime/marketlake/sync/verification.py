"""Verify the bytes of a file while they stream from the venue."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from marketlake.domain.archive import ArchiveFile
from marketlake.sync.errors import (
    ChecksumMismatchError,
    EmptyFileError,
    HtmlInsteadOfZipError,
    NotAZipError,
    TruncatedError,
)

Progress = Callable[[int], None]
"""Told how many further bytes have passed; a negative number takes back those of a failed attempt."""


@dataclass(slots=True, kw_only=True)
class VerifiedStream:
    """The bytes of one attempt, verified while they stream."""

    file: ArchiveFile
    sha256: str
    """What the venue's checksum file says."""
    progress: Progress
    announced: int = 0
    """Bytes that the response's head promised."""
    size: int = 0
    """Bytes that have passed."""

    async def proven(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks, and raise instead of ending unless they have the checksum."""
        digest = hashlib.sha256()
        async for chunk in chunks:
            if not self.size:
                self._sniff(chunk)
            digest.update(chunk)
            self.size += len(chunk)
            self.progress(len(chunk))
            if self.size > self.announced:
                raise TruncatedError(
                    f"{self.file.key}: more than the {self.announced} announced bytes came. It is tried again by "
                    "itself; if it persists, the venue's object is damaged: report it."
                )
            yield chunk
        self._prove(digest.hexdigest())

    def take_back(self) -> None:
        """Subtract the bytes so far from the progress."""
        self.progress(-self.size)

    def _sniff(self, head: bytes) -> None:
        start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
            raise HtmlInsteadOfZipError(
                f"{self.file.key}: a web page came instead of a zip ({head[:60]!r}…). A proxy, a login page "
                "or the venue's bot protection stands between: open the endpoint from this machine and see."
            )
        if not head.startswith(b"PK"):
            raise NotAZipError(
                f"{self.file.key}: the bytes begin with {head[:8]!r}, not with b'PK' as a zip does. It was "
                "not copied; report it to the venue, and collect again once it is replaced."
            )

    def _prove(self, got: str) -> None:
        if not self.size:
            raise EmptyFileError(
                f"{self.file.key}: the object is empty (0 bytes, {self.file.size} listed). It was not "
                "copied; collect again once the venue has replaced it."
            )
        if got == self.sha256:
            return
        if self.size < self.file.size:
            raise TruncatedError(
                f"{self.file.key}: only {self.size} of the {self.file.size} listed bytes came. It is tried "
                "again by itself; if it persists, the venue's object is damaged: report it."
            )
        raise ChecksumMismatchError(
            f"{self.file.key}: the bytes' sha256 is {got}, the venue's checksum file says {self.sha256}. "
            "It was not copied. Perhaps the venue is replacing it: collect again later, else report it.",
            expected=self.sha256,
            got=got,
        )
