"""What a bucket is recognised by: an object with a number of its own, written once.

A bucket that was emptied, or another one of the same name, has none or another. Writing it also proves what all commits
rely on: that the store refuses a second conditional put of the same key.
"""

from uuid import UUID, uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore as Bucket

from marketlake.errors import MarketlakeError
from marketlake.infrastructure.storage.stores import storage_error

KEY = ".marketlake/identity"


class UnconditionalStoreError(MarketlakeError):
    """The object store lets a conditional put through whose condition is not met."""

    code = "unconditional-store"


def identity_of(bucket: Bucket) -> UUID | None:
    """Return the identity of a bucket; None if it has none.

    Raises:
        StorageError: the store failed.
    """
    try:
        return UUID(bytes(obstore.get(bucket, KEY).bytes()).decode("ascii", "replace").strip())
    except (FileNotFoundError, ValueError):
        return None
    except BaseError as error:
        raise storage_error(error, f"reading {KEY}") from error


def identify(bucket: Bucket) -> UUID:
    """Return the identity of a bucket, given to it now if it has none.

    Raises:
        StorageError: the store failed.
        UnconditionalStoreError: the store does not honour ``If-None-Match``: two writers could both win a commit.
    """
    found = identity_of(bucket)
    if found is None:
        _put_once(bucket, uuid4())
        found = identity_of(bucket)
    if found is None or _put_once(bucket, uuid4()):
        raise UnconditionalStoreError(
            "the object store overwrites an object although it is asked not to (If-None-Match): two writers could "
            "both win a commit, and rows would be lost. Use a store that honours it: MinIO, or S3 itself."
        )
    return found


def _put_once(bucket: Bucket, identity: UUID) -> bool:
    """Whether the object was not there, so that it was written."""
    try:
        obstore.put(bucket, KEY, str(identity).encode(), mode="create", use_multipart=False)
    except AlreadyExistsError:
        return False
    except BaseError as error:
        raise storage_error(error, f"writing {KEY}") from error
    return True
