"""The object stores of the runtime: the landing bucket, and the lake's Delta tables."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from obstore.store import S3Store

from marketlake.settings import ObjectStore
from marketlake.sync.errors import StorageError, StorageFullError, SyncError

_FULL = ("StorageFull", "free drive threshold", "QuotaExceeded", "No space left", "507 Insufficient Storage")
"""How MinIO, S3 look-alikes and file systems say that there is no room."""


@dataclass(frozen=True, slots=True)
class Lake:
    """Where the Delta tables lie."""

    root: str
    """URI or path, without final slash."""
    options: dict[str, str]
    """Storage options for deltalake and Polars. They hold the secret key: never log them."""

    @classmethod
    def of(cls, store: ObjectStore) -> Self:
        """The lake bucket of an object store."""
        return cls(
            root=f"s3://{store.lake_bucket}",
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
        """URI of a table, e.g. ``bronze/klines``."""
        return f"{self.root}/{table}"

    def __repr__(self) -> str:
        return f"Lake(root={self.root!r})"


def landing_store(store: ObjectStore) -> S3Store:
    """The bucket that holds the archive files as the venues published them."""
    return bucket_store(store, store.landing_bucket)


def lake_store(store: ObjectStore) -> S3Store:
    """The bucket that holds the Delta tables, for whole objects."""
    return bucket_store(store, store.lake_bucket)


def bucket_store(store: ObjectStore, bucket: str) -> S3Store:
    """A bucket of the platform's own object store, path-style.

    Retries within 30 s, long enough for the store's restart; a longer absence is for the caller to wait out.
    """
    return S3Store(
        bucket,
        endpoint=store.endpoint,
        region=store.region,
        access_key_id=store.access_key_id,
        secret_access_key=store.secret_access_key.get_secret_value(),
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": timedelta(seconds=120)},
        retry_config={
            "max_retries": 6,
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5)},
            "retry_timeout": timedelta(seconds=30),
        },
    )


def storage_error(error: Exception, what: str) -> SyncError:
    """What a failure of the object store means for `what` (a bucket's or table's part)."""
    text = str(error)
    if any(sign in text for sign in _FULL):
        return StorageFullError(
            f"{what}: the object store has no room left. Free disk space where its data lies (or raise the "
            "bucket's quota), then collect again: what is in stays in, and only the rest is copied."
        )
    return StorageError(
        f"{what}: the object store failed ({_first_line(text)}). Look at `marketlake status`; once it is "
        "healthy, collect again."
    )


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")[:300]
