"""Copy one archive file from the venue straight into the landing bucket.

The bytes stream through memory in pieces and touch no disk. Their digest is taken as they pass, and the upload is only
completed once it is what the venue says: what is visible in landing is proven, as far as the venue allows it.
"""

import asyncio
import contextlib
import hashlib
import re
from dataclasses import dataclass, field

import aiohttp
import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore as Bucket
from opentelemetry import trace

from marketlake.domain.archive import ArchiveFile
from marketlake.domain.venue import Integrity
from marketlake.infrastructure.storage.stores import PART, PARTS_IN_FLIGHT, storage_error
from marketlake.settings import VenueEndpoint
from marketlake.sync.errors import (
    ChecksumMismatchError,
    LandingMissingError,
    NotPublishedError,
    SidecarMissingError,
    TruncatedError,
)
from marketlake.sync.sidecar import LONGEST, parse_sidecar
from marketlake.sync.transport import (
    CONNECTION_ERRORS,
    BoundedBody,
    Timeouts,
    accept,
    connection_error,
    object_url,
    stream_async,
    venue_client,
)
from marketlake.sync.verification import Digest, Progress, VerifiedStream

CHUNK = 256 * 1024
"""Bytes read from the venue at once."""
HELD = 2 * 1024 * 1024
"""Bytes up to which a copied file is also handed to the caller, who need not read it again."""
SHA256_ATTRIBUTE = "sha256"
"""Name of the object metadata that holds the proven checksum, where it was known before the last byte came."""
ETAG_ATTRIBUTE = "source-etag"
"""Name of the object metadata that holds the ETag that the venue listed."""

_COLLECT_AGAIN = "collect it again, so that it is copied from the venue."

_MD5 = re.compile(r"[0-9a-f]{32}")
_tracer = trace.get_tracer("marketlake")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedObject:
    """An archive file in the landing bucket."""

    key: str
    """In the landing bucket."""
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal, lower case; of bytes that were proven as the venue allows it."""
    etag: str
    """Of the landing object, without quotes."""
    version_id: str | None
    """Of the landing object; None if the bucket is not versioned."""
    already_there: bool
    """True if landing held these very bytes before, so that nothing was copied."""
    data: bytes | None = field(default=None, repr=False)
    """The bytes, if they were copied and are at most :data:`HELD`."""


def landing_key(venue: str, key: str) -> str:
    """Return the key of a venue's object in the landing bucket.

    The venue's key below the venue's name. A leading slash, which would make an empty path segment that
    object stores refuse, is written ``%2F``.
    """
    return f"{venue}/%2F{key[1:]}" if key.startswith("/") else f"{venue}/{key}"


async def copy_file(
    file: ArchiveFile,
    endpoint: VenueEndpoint,
    landing: Bucket,
    *,
    integrity: Integrity = Integrity.SIDECAR,
    look: bool = True,
    progress: Progress | None = None,
    timeouts: Timeouts | None = None,
    client: aiohttp.ClientSession | None = None,
) -> CopiedObject:
    """Copy a file into landing, unless landing has it, and return the object.

    Args:
        file: as discovered. Its checksum file is looked for under the listed key, else beside it.
        endpoint: where the venue is read.
        landing: the landing bucket.
        integrity: how the bytes are proven.
        look: look into landing first. For a small file that is most likely not there, a copy costs no more.
        progress: see :data:`marketlake.sync.verification.Progress`.
        timeouts: how long the venue is waited for; the defaults if None.
        client: from :func:`marketlake.sync.transport.venue_client`, to share connections between copies.

    Raises:
        SyncError: nothing became visible in landing, and no unfinished upload stays; the class says why.
    """
    timeouts = timeouts or Timeouts()
    attributes = {
        "marketlake.venue": file.venue,
        "marketlake.key": file.key,
        "aws.s3.key": landing_key(file.venue, file.key),
    }
    with _tracer.start_as_current_span("copy", attributes=attributes) as span:
        async with contextlib.AsyncExitStack() as stack:
            if client is None:
                client = await stack.enter_async_context(venue_client(timeouts))
            transfer = _Copy(
                file=file,
                endpoint=endpoint,
                landing=landing,
                integrity=integrity,
                client=client,
                timeouts=timeouts,
                look=look,
                progress=progress or _unwatched,
            )
            copied = await transfer.run()
        span.set_attribute("marketlake.bytes", 0 if copied.already_there else copied.size)
        span.set_attribute("marketlake.already_there", copied.already_there)
        return copied


async def recall_file(key: str, landing: Bucket, *, sha256: str, version_id: str | None) -> CopiedObject:
    """Return an object that was copied into landing before; nothing is asked of the venue.

    A small one is read, and its bytes are proven; of a larger one the checksum is compared that was proven when it
    was copied.

    Args:
        key: in the landing bucket.
        landing: the landing bucket.
        sha256: what it was proven to have.
        version_id: which version of it; None if the bucket is not versioned.

    Raises:
        LandingMissingError: it is not there, or there are other bytes.
        StorageError: the store failed.
    """
    options: obstore.GetOptions = {"version": version_id} if version_id else {}
    try:
        found = await obstore.get_async(landing, key, options=options)
        # A version never changes; one without the checksum came from a venue that does not tell it beforehand.
        proven = found.attributes.get(SHA256_ATTRIBUTE, sha256 if version_id else None) == sha256
        data: bytes | None = None
        if found.meta["size"] <= HELD:
            data = bytes(await found.bytes_async())
            proven = hashlib.sha256(data).hexdigest() == sha256
    except FileNotFoundError as error:
        raise LandingMissingError(f"{key} is not in landing any more: {_COLLECT_AGAIN}") from error
    except BaseError as error:
        raise storage_error(error, f"reading {key} from landing") from error
    if not proven:
        raise LandingMissingError(f"{key} has other bytes in landing than were collected: {_COLLECT_AGAIN}")
    return CopiedObject(
        key=key,
        size=found.meta["size"],
        sha256=sha256,
        etag=(found.meta["e_tag"] or "").strip('"'),
        version_id=version_id,
        already_there=True,
        data=data,
    )


def _unwatched(count: int) -> None:
    """Nobody watches the progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    file: ArchiveFile
    endpoint: VenueEndpoint
    landing: Bucket
    integrity: Integrity
    client: aiohttp.ClientSession
    timeouts: Timeouts
    look: bool
    progress: Progress

    @property
    def key(self) -> str:
        return landing_key(self.file.venue, self.file.key)

    async def run(self) -> CopiedObject:
        expected = await self._expected()
        if self.look and (found := await self._find(expected)):
            return found
        try:
            return await self._transfer(expected)
        except ChecksumMismatchError:
            if self.integrity is not Integrity.SIDECAR:
                raise
            # The venue replaces files in place: the checksum file may be older than the bytes, or newer.
            return await self._transfer(await self._expected())

    async def _expected(self) -> Digest | None:
        """What the venue says of the bytes."""
        if self.integrity is Integrity.SIDECAR:
            return Digest("sha256", await self._sidecar(), "the venue's checksum file")
        if self.integrity is Integrity.ETAG and _MD5.fullmatch(self.file.etag):
            return Digest("md5", self.file.etag, "the ETag of the venue's listing")
        return None

    async def _sidecar(self) -> str:
        key = self.file.sidecar_key or f"{self.file.key}.CHECKSUM"
        url = object_url(self.endpoint, key)
        try:
            async with stream_async(self.client, url) as response:
                accept(response.status, response.headers, url)
                body = await BoundedBody(url, most=LONGEST, within_s=self.timeouts.body_s).read_async(
                    response
                )
        except CONNECTION_ERRORS as error:
            raise connection_error(error, url, self.timeouts) from error
        except NotPublishedError as error:
            raise SidecarMissingError(
                f"{self.file.key} has no checksum file ({url}: HTTP {response.status}), so its bytes "
                "cannot be proven and it was not copied. The venue may add it later: collect again then."
            ) from error
        return parse_sidecar(body, self.file.key)

    async def _find(self, expected: Digest | None) -> CopiedObject | None:
        try:
            found = await obstore.get_async(self.landing, self.key, options={"head": True})
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise storage_error(error, f"looking for {self.key} in landing") from error
        sha256 = found.attributes.get(SHA256_ATTRIBUTE)
        if expected is not None and expected.algorithm == "sha256":
            same = sha256 == expected.value
        else:
            # Copied from the very object that is listed, and its bytes were proven then.
            same = (
                found.attributes.get(ETAG_ATTRIBUTE) == self.file.etag
                and found.meta["size"] == self.file.size
            )
        if sha256 is None or not same:
            return None
        return CopiedObject(
            key=self.key,
            size=found.meta["size"],
            sha256=sha256,
            etag=(found.meta["e_tag"] or "").strip('"'),
            version_id=found.meta["version"],
            already_there=True,
        )

    async def _transfer(self, expected: Digest | None) -> CopiedObject:
        url = object_url(self.endpoint, self.file.key)
        passed = VerifiedStream(file=self.file, expected=expected, progress=self.progress)
        try:
            async with stream_async(self.client, url) as response:
                accept(response.status, response.headers, url)
                return await self._upload(response, passed)
        except CONNECTION_ERRORS as error:
            passed.take_back()
            if isinstance(error, aiohttp.ClientPayloadError) and passed.announced:
                raise TruncatedError(
                    f"{url}: the connection ended before all of the {passed.announced} announced bytes had "
                    f"come ({error}). It is tried again by itself; if it persists, the venue's object is "
                    "damaged: report it."
                ) from error
            raise connection_error(error, url, self.timeouts) from error
        except BaseError as error:
            passed.take_back()
            raise storage_error(error, f"writing {self.key} to landing") from error
        except BaseException:
            passed.take_back()
            raise

    async def _upload(self, response: aiohttp.ClientResponse, passed: VerifiedStream) -> CopiedObject:
        length = response.headers.get("content-length")
        passed.announced = int(length) if length else self.file.size
        body = passed.proven(response.content.iter_chunked(CHUNK))
        whole = b"".join([chunk async for chunk in body]) if length and int(length) <= PART else None
        attributes = {"Content-Type": "application/zip", ETAG_ATTRIBUTE: self.file.etag}
        # Written before the bytes have passed: of a large file only what the venue says is known then.
        if sha256 := passed.sha256 or (
            passed.expected.value if passed.expected and not passed.by_md5 else ""
        ):
            attributes[SHA256_ATTRIBUTE] = sha256
        upload = asyncio.ensure_future(
            obstore.put_async(
                self.landing,
                self.key,
                body if whole is None else whole,
                attributes=attributes,
                use_multipart=whole is None,
                chunk_size=PART,
                max_concurrency=PARTS_IN_FLIGHT,
            )
        )
        try:
            result = await asyncio.shield(upload)
        except asyncio.CancelledError:
            # A cancelled put would leave its parts behind; one whose body fails takes them away.
            response.close()
            await asyncio.wait([upload])
            raise
        return CopiedObject(
            key=self.key,
            size=passed.size,
            sha256=passed.sha256,
            etag=(result["e_tag"] or "").strip('"'),
            version_id=result["version"],
            already_there=False,
            data=whole if whole is not None and len(whole) <= HELD else None,
        )
