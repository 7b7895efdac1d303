"""Give a lake up as a whole, so that it can be made anew from landing."""

import logging

import obstore
from obstore.exceptions import BaseError

from marketlake.archive import ledger
from marketlake.archive.collection import batches
from marketlake.archive.collection.stores import LAKE, Stores
from marketlake.errors import MarketlakeError
from marketlake.infrastructure.postgres import Postgres
from marketlake.infrastructure.storage.stores import storage_error
from marketlake.pipeline.ingest import staging

log = logging.getLogger(__name__)

_TABLES = ("bronze/", "silver/", "gaps/", "quarantine/")
"""What is made from landing; the catalogue is not."""
_DELETED_AT_ONCE = 1000


class LakeInUseError(MarketlakeError):
    """Batches have not ended; what they bring in would be lost."""

    code = "lake-in-use"


def forget(postgres: Postgres, stores: Stores) -> int:
    """Delete the tables that are made from landing, and note that the lake holds nothing.

    The ledger forgets first: killed in between, it does not call present what is gone, and the same call goes on.

    Returns:
        How many files have to be taken over again.

    Raises:
        LakeInUseError: batches have not ended.
        StorageError: the store failed.
    """
    with postgres.transaction() as connection:
        if open_batches := batches.open_batches(connection):
            raise LakeInUseError(
                f"{open_batches} collections have not ended, and what they bring in would be lost: wait for their "
                "end, or cancel them."
            )
        forgotten = ledger.forget_lake(connection)
        staging.forget(connection)
    for prefix in _TABLES:
        try:
            for page in obstore.list(stores.lake, prefix, chunk_size=_DELETED_AT_ONCE):
                obstore.delete(stores.lake, [entry["path"] for entry in page])
                log.info("%s: %d objects are deleted", prefix, len(page))
        except BaseError as error:
            raise storage_error(error, f"deleting {prefix} from the lake") from error
    stores.accept(postgres, LAKE)
    return forgotten
