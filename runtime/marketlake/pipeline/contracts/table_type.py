"""The vocabulary in which the engine reads a data type: columns, checks, and the tables of both layers.

Prices and quantities are doubles, not decimals. A double gives back every decimal text of up to 15
significant digits, which covers prices and quantities; a volume summed up over a large bar may have more, and
is then off by less than 1e-15 of itself. Scales differ by symbol, so that one decimal type for all would need
38 digits, which cost more to parse and to write (`make bench` prints how much). The text as published stays
in the landing bucket.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from marketlake.errors import MarketlakeError

if TYPE_CHECKING:
    from marketlake.pipeline.contracts.contract import Contract, SilverContract


class UnsupportedDatasetError(MarketlakeError):
    """Files of this kind are copied and catalogued, but no contract is mapped to them."""

    code = "unsupported-dataset"


class Kind(StrEnum):
    """How a column's text is read."""

    INTEGER = "integer"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    """``true``, ``false``, capitalised or not."""
    TIME = "time"
    """Milliseconds or microseconds since 1970-01-01 UTC, told apart by magnitude."""
    TEXT = "text"


_POLARS: Mapping[Kind, pl.DataType] = {
    Kind.INTEGER: pl.Int64(),
    Kind.DOUBLE: pl.Float64(),
    Kind.BOOLEAN: pl.Boolean(),
    Kind.TIME: pl.Datetime("us", "UTC"),
    Kind.TEXT: pl.String(),
}
_ARROW: Mapping[Kind, pa.DataType] = {
    Kind.INTEGER: pa.int64(),
    Kind.DOUBLE: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TIME: pa.timestamp("us", "UTC"),
    Kind.TEXT: pa.string(),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, as a contract declares it."""

    name: str
    kind: Kind
    optional: bool = False
    """True if some markets do not publish it, or it may be empty: null then."""
    description: str = ""
    unit: str | None = None
    markets: tuple[str, ...] = ()
    """Markets whose files have it; empty where all have."""
    values: tuple[str, ...] = ()
    """All that there can be; empty where that is open."""

    @property
    def polars(self) -> pl.DataType:
        """The type in a data frame."""
        return _POLARS[self.kind]

    @property
    def arrow(self) -> pa.Field:
        """The type in a file."""
        return pa.field(self.name, _ARROW[self.kind], nullable=self.optional)

    @property
    def comment(self) -> str:
        """The description with its unit, as the table's metadata have it."""
        return f"{self.description} Unit: {self.unit}." if self.unit else self.description


@dataclass(frozen=True, slots=True)
class Check:
    """A check of a silver table: rows for which `broken` is true go to quarantine."""

    reason: str
    broken: pl.Expr


MissingRows = Callable[[pl.DataFrame, str | None], pl.DataFrame]
"""(rows of one period in order, interval) → columns `first`, `last` (UTC), `first_id`, `last_id` (null where
rows have no numbers) and `missing` (how many rows are missing)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableType:
    """A data type of one market of a venue: its contracts of both layers, and the way from one to the other."""

    data_type: str
    """As the venue writes it."""
    bronze: "Contract"
    silver: "SilverContract"
    file_columns: tuple[str, ...]
    """Names and order of the columns of a file."""
    values: Mapping[str, pl.Expr]
    """What silver holds beside its series and the rows' origin, from columns of bronze, in order."""
    fixed: Mapping[str, str]
    """Values of series columns of silver that the data type itself says."""
    checks: tuple[Check, ...]
    """Over columns of silver."""
    missing: MissingRows
    """Finds the rows that are missing in a series."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is parsed: all columns of bronze that come from files, in order, also those that this market lacks."""
        return self.bronze.content
