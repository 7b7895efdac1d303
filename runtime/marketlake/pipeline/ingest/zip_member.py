"""Inflate the one member of a zip, in the landing bucket or in memory, as a stream.

The zip's directory is read by ranges, the member's bytes as one stream; memory stays bounded whatever the
size, and so does what comes out of it: a zip is what a venue, or whoever speaks in its name, made it.
Formats: PKWARE's APPNOTE 6.3 (zip, zip64), RFC 1951 (deflate).
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import obstore
from isal import isal_zlib
from obstore.store import ObjectStore as Bucket

from marketlake.pipeline.ingest.errors import CorruptZipError, InflatedTooLargeError, MultipleMembersError
from marketlake.settings import Collection
from marketlake.sync.errors import EmptyFileError, NotAZipError

TAIL = 128 * 1024
"""Bytes read from the end at once: the directory of a zip with few members, and all of a small file."""
PIECE = 256 * 1024
"""Compressed bytes inflated at once; larger pieces were slower, their output left the processor's cache."""
INFLATED = 4 * 1024 * 1024
"""The most bytes that are inflated at once, however well they were compressed."""
LONGEST_DIRECTORY = 1024 * 1024
"""Bytes; the directory of a zip with one member has a few hundred, and its comment at most 65535."""
_ANY_RATIO_UP_TO = 16 * 1024 * 1024
"""Bytes that a member may inflate to however well it was compressed."""
_LOCAL_HEADER = 30
"""Bytes of a local file header before its name."""
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True, kw_only=True)
class InflationLimits:
    """What a member may inflate to."""

    size: int
    """Bytes."""
    ratio: int
    """Times its compressed bytes. Deflate reaches 1032; rows that differ in nothing but their times, about 22."""

    @classmethod
    def of(cls, collection: Collection) -> Self:
        """The limits that are configured."""
        return cls(size=collection.max_inflated_mib * 1024**2, ratio=collection.max_inflation_ratio)

    def refuse_beyond(self, key: str, inflated: int, compressed: int) -> None:
        """Raise InflatedTooLargeError if `compressed` bytes must not become so many."""
        if inflated > self.size:
            raise InflatedTooLargeError(
                f"{key}: its member inflates to {inflated} bytes; at most {self.size} are taken. Nothing of it "
                "was kept. If the venue does publish files so large, raise collection.maxInflatedMib."
            )
        if inflated > max(_ANY_RATIO_UP_TO, self.ratio * compressed):
            raise InflatedTooLargeError(
                f"{key}: {compressed} compressed bytes inflate to {inflated}, more than {self.ratio} times as "
                "many, as in a zip bomb. Nothing of it was kept. If it is a real file after all, raise "
                "collection.maxInflationRatio."
            )


class Source(Protocol):
    """The bytes of a zip, wherever they lie."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def range(self, start: int, end: int) -> bytes:
        """Return the bytes between two offsets."""
        ...

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes between two offsets in pieces of at most :data:`PIECE`."""
        ...


class StoredZip:
    """A zip in the landing bucket: the bytes that were proven, not what another copy may put there meanwhile.

    Args:
        bucket: the landing bucket.
        key: of the object.
        version_id: which version of it; None if the bucket is not versioned.
        etag: what it must still have if there is no version; None: whatever is there.
    """

    def __init__(
        self, bucket: Bucket, key: str, *, version_id: str | None = None, etag: str | None = None
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._pinned: obstore.GetOptions = {}
        if version_id is not None:
            self._pinned = {"version": version_id}
        elif etag is not None:
            self._pinned = {"if_match": f'"{etag}"'}

    @cached_property
    def size(self) -> int:
        """See :class:`Source`."""
        return obstore.get(self._bucket, self._key, options={**self._pinned, "head": True}).meta["size"]

    def range(self, start: int, end: int) -> bytes:
        """See :class:`Source`."""
        return bytes(self._get(start, end).bytes()) if start < end else b""

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """See :class:`Source`."""
        if start == end:
            return
        for chunk in self._get(start, end).stream(min_chunk_size=PIECE):
            yield from _pieces(memoryview(chunk))  # a store may send more at once

    def _get(self, start: int, end: int) -> "obstore.GetResult":
        return obstore.get(self._bucket, self._key, options={**self._pinned, "range": (start, end)})


class HeldZip:
    """A zip in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """See :class:`Source`."""
        return len(self._data)

    def range(self, start: int, end: int) -> bytes:
        """See :class:`Source`."""
        return self._data[start:end]

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """See :class:`Source`."""
        return _pieces(memoryview(self._data)[start:end])


def _pieces(view: memoryview) -> Iterator[bytes]:
    for start in range(0, len(view), PIECE):
        yield bytes(view[start : start + PIECE])


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member that can be inflated."""

    source: Source
    key: str
    """Of the zip, for messages."""
    name: str
    size: int
    """Bytes when inflated, as the directory says."""
    crc: int
    stored: bool
    """True if it is not compressed at all."""
    start: int
    """Offset of its bytes in the zip."""
    end: int
    """Offset behind its bytes in the zip."""

    def pieces(self) -> Iterator[bytes]:
        """The member's bytes, in order; at the end their number and CRC-32 are proven.

        Raises:
            CorruptZipError: they are not what the zip's directory says; more than it says are not inflated.
            Pieces that came before are worth nothing.
        """
        crc = size = 0
        for piece in self.source.stream(self.start, self.end) if self.stored else self._inflated():
            size += len(piece)
            if size > self.size:
                raise self._corrupt(f"more than the {self.size} bytes came out that its directory says")
            crc = isal_zlib.crc32(piece, crc)
            yield piece
        if size != self.size or crc != self.crc:
            raise self._corrupt(
                f"{size} bytes with CRC {crc:08x} came out, its directory says {self.size} and {self.crc:08x}"
            )

    def _inflated(self) -> Iterator[bytes]:
        inflater = isal_zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for piece in self.source.stream(self.start, self.end):
                rest = piece
                while rest:
                    if inflated := inflater.decompress(rest, INFLATED):
                        yield inflated
                    rest = inflater.unconsumed_tail
            yield inflater.flush()
        except isal_zlib.IsalError as error:  # type: ignore[misc]  # its stub declares an instance
            raise self._corrupt(f"its deflate stream is broken ({error})") from error
        if not inflater.eof:
            raise self._corrupt("its deflate stream ends too early")

    def _corrupt(self, what: str) -> CorruptZipError:
        return CorruptZipError(
            f"{self.key}: the member {self.name!r} is corrupt, {what}. Its checksum file was right, so the "
            "venue published it broken: report it, and collect again once it is replaced. Nothing of it "
            "was kept."
        )


def open_member(source: Source, key: str, limits: InflationLimits) -> Member:
    """Return the one member of a zip; `key` names the zip in messages.

    Raises:
        NotAZipError: there is no readable zip directory, or the member needs what is not supported.
        MultipleMembersError: there is not exactly one member.
        EmptyFileError: the member holds no byte.
        InflatedTooLargeError: the member would inflate to more than the limits allow.
    """
    window = _Window(source, key)
    try:
        with zipfile.ZipFile(window) as archive:
            members = archive.infolist()
    # zipfile raises NotImplementedError for a member that wants a later version of the format than it reads
    except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise NotAZipError(
            f"{key}: it cannot be read as a zip ({error}). Its checksum file was right, so the venue "
            "published it broken: report it, and collect again once it is replaced."
        ) from error
    if len(members) != 1:
        names = ", ".join(repr(member.filename) for member in members[:5]) or "none"
        raise MultipleMembersError(
            f"{key}: the zip has {len(members)} members ({names}), but exactly one CSV is expected. Which "
            "of them is meant cannot be guessed: it was not parsed; the copy in landing can be looked at."
        )
    (info,) = members
    if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotAZipError(
            f"{key}: the member {info.filename!r} is encrypted or compressed by method "
            f"{info.compress_type}; only plain deflated or stored members are read."
        )
    if info.file_size == 0:
        raise EmptyFileError(
            f"{key}: the member {info.filename!r} is empty. Nothing was parsed; collect again once the "
            "venue has replaced it."
        )
    start = window.member_start(info.header_offset)
    if start + info.compress_size > window.size:
        raise NotAZipError(
            f"{key}: its directory says that the member ends at byte {start + info.compress_size}, but the zip has "
            f"{window.size}. Report it to the venue."
        )
    limits.refuse_beyond(key, info.file_size, info.compress_size)
    return Member(
        source=source,
        key=key,
        name=info.filename,
        size=info.file_size,
        crc=info.CRC,
        stored=info.compress_type == zipfile.ZIP_STORED,
        start=start,
        end=start + info.compress_size,
    )


class _Window(io.RawIOBase):
    """A seekable view of a zip that asks once for its end, where the directory lies."""

    def __init__(self, source: Source, key: str) -> None:
        super().__init__()
        self._source = source
        self._key = key
        self.size = source.size
        self._tail_start = max(0, self.size - TAIL)
        self._tail = source.range(self._tail_start, self.size)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        start = self._position
        end = self.size if size is None or size < 0 else min(self.size, start + size)
        if start >= end:
            return b""
        if end - start > LONGEST_DIRECTORY:
            raise NotAZipError(
                f"{self._key}: its directory has more than {LONGEST_DIRECTORY} bytes, but exactly one member is "
                "expected. It was not parsed; the copy in landing can be looked at."
            )
        self._position = end
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : end - self._tail_start]
        return self._source.range(start, end)

    def member_start(self, header_offset: int) -> int:
        """Offset of a member's bytes: behind its local header, whose name and extra field vary in length."""
        self.seek(header_offset)
        header = self.read(_LOCAL_HEADER)
        if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
            raise NotAZipError(
                f"{self._key}: its directory points to where no member begins. Report it to the venue."
            )
        return (
            header_offset
            + _LOCAL_HEADER
            + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        )
