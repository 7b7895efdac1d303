"""What goes wrong in the object store and in the commits of its Delta tables."""

from marketlake.errors import MarketlakeError


class StorageFullError(MarketlakeError):
    """The object store has no room left."""

    code = "storage-full"
    transient = True


class StorageError(MarketlakeError):
    """The object store failed in some other way."""

    code = "storage"
    transient = True


class CommitConflictError(MarketlakeError):
    """Other writers kept changing the same part of a table."""

    code = "commit-conflict"
    transient = True


class TableSchemaError(MarketlakeError):
    """A table cannot take the columns that its contract has."""

    code = "table-schema"
