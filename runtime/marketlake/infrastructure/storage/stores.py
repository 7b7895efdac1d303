"""The object stores of the runtime: the landing bucket, and the lake's Delta tables."""

import contextlib
import queue
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

import obstore
from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError
from obstore.store import ObjectStore as Bucket
from obstore.store import S3Store
from polars.exceptions import PolarsError

from marketlake.infrastructure.storage.errors import StorageError, StorageFullError
from marketlake.settings import ObjectStore

PART = 8 * 1024 * 1024
"""Bytes of one part of an upload. What is not larger is put in one request."""
PARTS_IN_FLIGHT = 4

STORE_ERRORS = (DeltaError, PolarsError, BaseError, OSError)
"""What deltalake, Polars, obstore and Arrow raise when an object store fails them."""

_FULL = ("StorageFull", "free drive threshold", "QuotaExceeded", "No space left", "507 Insufficient Storage")
"""How MinIO, S3 look-alikes and file systems say that there is no room."""
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|[↳\n]")
"""Colours and arrows in deltalake's messages."""


@dataclass(frozen=True, slots=True)
class Lake:
    """Where the Delta tables lie."""

    root: str
    """URI or path, without final slash."""
    bucket: Bucket
    """The same place, for whole objects."""
    options: dict[str, str] = field(default_factory=dict, repr=False)
    """Storage options for deltalake and Polars. They hold the secret key: never log them."""

    @classmethod
    def of(cls, store: ObjectStore) -> Self:
        """Return the lake of an object store."""
        return cls(
            root=f"s3://{store.lake_bucket}",
            bucket=bucket_store(store, store.lake_bucket),
            options={
                "endpoint_url": store.endpoint,
                "region": store.region,
                "access_key_id": store.access_key_id,
                "secret_access_key": store.secret_access_key.get_secret_value(),
                "virtual_hosted_style_request": "false",
                "allow_http": "true",
                "conditional_put": "etag",  # a commit is one conditional put: two writers cannot both win
            },
        )

    def uri(self, table: str) -> str:
        """Return the URI of a table, e.g. ``silver/candles``."""
        return f"{self.root}/{table}"

    def put(self, key: str, pieces: Iterable[bytes], *, wanted: Callable[[], bool]) -> int:
        """Stream an object into the lake.

        Args:
            key: below the lake's root.
            pieces: its bytes; if they raise, nothing is left in the store and the error passes through.
            wanted: asked after the last piece of a small object whether to put it at all.

        Returns:
            its size in bytes; 0 if it was not wanted.
        """
        sized = _Sized(pieces)
        head = b"".join(sized.up_to(PART))
        try:
            if sized.ended:
                if not wanted():
                    return 0
                obstore.put(self.bucket, key, head, use_multipart=False)
            else:
                self._put_parts(key, sized.behind(head))
        except BaseError as error:
            raise storage_error(error, f"writing {key} to the lake") from error
        return sized.size

    def _put_parts(self, key: str, pieces: Iterator[bytes]) -> None:
        """Upload in parts from a thread of its own: making the pieces may itself read from object stores."""
        pipe: queue.Queue[bytes | _Abandoned | None] = queue.Queue(maxsize=2)

        def drained() -> Iterator[bytes]:
            while (piece := pipe.get()) is not None:
                if isinstance(piece, _Abandoned):
                    raise piece  # makes the store drop the parts that are already there
                yield piece

        with ThreadPoolExecutor(1) as thread:
            upload = thread.submit(
                obstore.put, self.bucket, key, drained(), chunk_size=PART, max_concurrency=PARTS_IN_FLIGHT
            )

            def hand_over(piece: bytes | _Abandoned | None) -> None:
                while not upload.done():
                    with contextlib.suppress(queue.Full):
                        pipe.put(piece, timeout=0.1)
                        return

            try:
                for piece in pieces:
                    hand_over(piece)
                    if upload.done():
                        break
                hand_over(None)
            except BaseException:
                hand_over(_Abandoned())
                raise
            upload.result()


class _Abandoned(Exception):  # noqa: N818 - a signal, seen by nobody
    """The pieces of an upload will not come to an end."""


class _Sized:
    """Pieces on their way, counted."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.size = 0
        self.ended = False

    def up_to(self, size: int) -> Iterator[bytes]:
        """Pieces until they hold at least so many bytes, or end."""
        while self.size < size:
            piece = next(self._pieces, None)
            if piece is None:
                self.ended = True
                return
            self.size += len(piece)
            yield piece

    def behind(self, head: bytes) -> Iterator[bytes]:
        """The head, and what follows it."""
        yield head
        for piece in self._pieces:
            self.size += len(piece)
            yield piece


def landing_store(store: ObjectStore) -> S3Store:
    """Return the bucket that holds the archive files as the venues published them."""
    return bucket_store(store, store.landing_bucket)


def bucket_store(store: ObjectStore, bucket: str) -> S3Store:
    """Return a bucket of the platform's own object store, path-style.

    Retries within 30 s, long enough for the store's restart; a longer absence is for the caller to wait out.
    """
    return S3Store(
        bucket,
        endpoint=store.endpoint,
        region=store.region,
        access_key_id=store.access_key_id,
        secret_access_key=store.secret_access_key.get_secret_value(),
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": store.endpoint.startswith("http://"),
            "timeout": timedelta(seconds=120),
        },
        retry_config={
            "max_retries": 6,
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5)},
            "retry_timeout": timedelta(seconds=30),
        },
    )


def storage_error(error: Exception, what: str) -> StorageError | StorageFullError:
    """Return the platform's error for a failure of the object store while doing `what`."""
    text = str(error)
    if any(sign in text for sign in _FULL):
        return StorageFullError(
            f"{what}: the object store has no room left. Free disk space where its data lies (or raise the "
            "bucket's quota), then collect again: what is in stays in, and only the rest is copied."
        )
    return StorageError(
        f"{what}: the object store failed ({_in_one_line(text)}). Look at `marketlake status`; once it is "
        "healthy, collect again."
    )


def _in_one_line(text: str) -> str:
    words = " ".join(_DECORATION.sub(" ", text).split())
    return words[:400] or "no reason given"
