"""The object stores, and how Delta tables are written: data files as streams, parts replaced in one commit."""

from marketlake.infrastructure.storage.delta import (
    DataFile,
    Scope,
    TableShape,
    data_files,
    open_table,
    replace,
    scope_files,
    write_file,
)
from marketlake.infrastructure.storage.errors import CommitConflictError, StorageError, StorageFullError
from marketlake.infrastructure.storage.stores import Lake, bucket_store, landing_store

__all__ = [
    "CommitConflictError",
    "DataFile",
    "Lake",
    "Scope",
    "StorageError",
    "StorageFullError",
    "TableShape",
    "bucket_store",
    "data_files",
    "landing_store",
    "open_table",
    "replace",
    "scope_files",
    "write_file",
]
