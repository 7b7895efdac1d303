"""Verify the bytes of a file while they stream from the venue."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True, slots=True)
class Digest:
    """What the venue says of the bytes."""

    algorithm: Literal["sha256", "md5"]
    value: str
    """Hexadecimal, lower case."""
    said_by: str
    """Where it says so, for messages."""


@dataclass(slots=True, kw_only=True)
class VerifiedStream:
    """The bytes of one attempt, verified while they stream."""

    file: ArchiveFile
    expected: Digest | None
    """None: the venue says nothing, and only the length is held to what was announced and listed."""
    progress: Progress
    sha256: str = ""
    """Of the bytes; known when all have passed."""
    announced: int = 0
    """Bytes that the response's head promised."""
    size: int = 0
    """Bytes that have passed."""

    async def proven(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks, and raise instead of ending unless they have the digest."""
        own = hashlib.sha256()
        named = hashlib.md5(usedforsecurity=False) if self.by_md5 else own
        async for chunk in chunks:
            if not self.size:
                self._sniff(chunk)
            own.update(chunk)
            if named is not own:
                named.update(chunk)
            self.size += len(chunk)
            self.progress(len(chunk))
            if self.size > self.announced:
                raise TruncatedError(
                    f"{self.file.key}: more than the {self.announced} announced bytes came. It is tried again by "
                    "itself; if it persists, the venue's object is damaged: report it."
                )
            yield chunk
        self.sha256 = own.hexdigest()
        self._prove(named.hexdigest())

    @property
    def by_md5(self) -> bool:
        """Whether the venue tells an MD5 instead of a sha256."""
        return self.expected is not None and self.expected.algorithm == "md5"

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
        expected = self.expected
        if expected is None:
            if self.size == self.file.size:
                return
        elif got == expected.value:
            return
        if self.size < self.file.size:
            raise TruncatedError(
                f"{self.file.key}: only {self.size} of the {self.file.size} listed bytes came. It is tried "
                "again by itself; if it persists, the venue's object is damaged: report it."
            )
        if expected is None:
            raise TruncatedError(
                f"{self.file.key}: {self.size} bytes came, {self.file.size} were listed. The venue may be replacing "
                "it: it is tried again by itself, and found anew by the next collection."
            )
        raise ChecksumMismatchError(
            f"{self.file.key}: the bytes' {expected.algorithm} is {got}, {expected.said_by} says {expected.value}. "
            "It was not copied. Perhaps the venue is replacing it: collect again later, else report it.",
            expected=expected.value,
            got=got,
        )
