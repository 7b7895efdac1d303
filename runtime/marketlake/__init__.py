"""The runtime of a market-data lake: discover, collect, refine and query exchange archives.

The names below are what users of the lake and writers of venue plug-ins need. All other modules are the runtime's own.
A name's module is imported when the name is asked for, so that `import marketlake` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marketlake.domain import (
        ArchiveFile,
        Availability,
        ContractMapping,
        Dataset,
        Frequency,
        Integrity,
        KeyFields,
        KeyRange,
        Listing,
        Period,
        PrefixPattern,
        Selection,
        SelectionError,
        Series,
        Venue,
    )
    from marketlake.errors import MarketlakeError
    from marketlake.pipeline.contracts import Contract, ContractError, contracts
    from marketlake.pipeline.serving import SqlError, query, tables
    from marketlake.settings import Settings, SettingsError, VenueEndpoint

__version__ = "0.1.0"

__all__ = [
    "ArchiveFile",
    "Availability",
    "Contract",
    "ContractError",
    "ContractMapping",
    "Dataset",
    "Frequency",
    "Integrity",
    "KeyFields",
    "KeyRange",
    "Listing",
    "MarketlakeError",
    "Period",
    "PrefixPattern",
    "Selection",
    "SelectionError",
    "Series",
    "Settings",
    "SettingsError",
    "SqlError",
    "Venue",
    "VenueEndpoint",
    "contracts",
    "query",
    "tables",
]

_MODULES = {
    "marketlake.domain": (
        "ArchiveFile",
        "Availability",
        "ContractMapping",
        "Dataset",
        "Frequency",
        "Integrity",
        "KeyFields",
        "KeyRange",
        "Listing",
        "Period",
        "PrefixPattern",
        "Selection",
        "SelectionError",
        "Series",
        "Venue",
    ),
    "marketlake.errors": ("MarketlakeError",),
    "marketlake.pipeline.contracts": ("Contract", "ContractError", "contracts"),
    "marketlake.pipeline.serving": ("SqlError", "query", "tables"),
    "marketlake.settings": ("Settings", "SettingsError", "VenueEndpoint"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
