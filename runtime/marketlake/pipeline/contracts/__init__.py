"""What each table of the lake promises: columns, keys and checks."""

from marketlake.pipeline.contracts.catalogue import CATALOGUE
from marketlake.pipeline.contracts.contract import Contract, ContractError, Layer, SilverContract
from marketlake.pipeline.contracts.table_type import Check, Column, Kind, TableType, UnsupportedDatasetError
from marketlake.pipeline.contracts.tables import Contracts, contracts, file_columns, table_type

__all__ = [
    "CATALOGUE",
    "Check",
    "Column",
    "Contract",
    "ContractError",
    "Contracts",
    "Kind",
    "Layer",
    "SilverContract",
    "TableType",
    "UnsupportedDatasetError",
    "contracts",
    "file_columns",
    "table_type",
]
