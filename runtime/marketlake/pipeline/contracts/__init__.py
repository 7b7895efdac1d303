"""What each table of the lake promises: columns, keys and checks."""

from marketlake.pipeline.contracts.catalogue import CATALOGUE
from marketlake.pipeline.contracts.table_type import Check, Column, Kind, TableType, UnsupportedDatasetError
from marketlake.pipeline.contracts.tables import TABLE_TYPES, file_columns, is_supported, table_type

__all__ = [
    "CATALOGUE",
    "TABLE_TYPES",
    "Check",
    "Column",
    "Kind",
    "TableType",
    "UnsupportedDatasetError",
    "file_columns",
    "is_supported",
    "table_type",
]
