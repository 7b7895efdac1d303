"""The vocabulary in which a data type is declared: columns, keys, checks.

Prices and quantities are doubles, not decimals. A double gives back every decimal text of up to 15
significant digits, which covers prices and quantities; a volume summed up over a large bar may have more, and
is then off by less than 1e-15 of itself. Scales differ by symbol, so that one decimal type for all would need
38 digits, which cost more to parse and to write (`make bench` prints how much). The text as published stays
in the landing bucket.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import polars as pl
import pyarrow as pa

from marketlake.domain.period import Period
from marketlake.errors import MarketlakeError


class UnsupportedDatasetError(MarketlakeError):
    """Files of this kind are copied and catalogued, but no parsing is declared for them."""

    code = "unsupported-dataset"


class Kind(StrEnum):
    """How a column's text is read."""

    INTEGER = "integer"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    """``true``, ``false``, capitalised or not."""
    TIME = "time"
    """Milliseconds or microseconds since 1970-01-01 UTC, told apart by magnitude."""


_POLARS: Mapping[Kind, pl.DataType] = {
    Kind.INTEGER: pl.Int64(),
    Kind.DOUBLE: pl.Float64(),
    Kind.BOOLEAN: pl.Boolean(),
    Kind.TIME: pl.Datetime("us", "UTC"),
}
_ARROW: Mapping[Kind, pa.DataType] = {
    Kind.INTEGER: pa.int64(),
    Kind.DOUBLE: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TIME: pa.timestamp("us", "UTC"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    kind: Kind
    optional: bool = False
    """True if some markets do not publish it, or it may be empty: null then."""

    @property
    def polars(self) -> pl.DataType:
        """The type in a data frame."""
        return _POLARS[self.kind]

    @property
    def arrow(self) -> pa.Field:
        """The type in a file."""
        return pa.field(self.name, _ARROW[self.kind], nullable=self.optional)


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
    """The bronze and the silver table of one data type."""

    data_type: str
    """As the venue writes it."""
    name: str
    """Of the tables: the data type in snake case."""
    columns: tuple[Column, ...]
    """Of bronze, in order. Columns of a file that are not among them are left out."""
    by_interval: bool = False
    """True for bars: the interval is part of what identifies a row."""
    time: str
    """The column that says when."""
    silver: Mapping[str, pl.Expr]
    """Columns of silver, from those of bronze, in order."""
    silver_by_market: Mapping[tuple[str, str], Mapping[str, pl.Expr]] = field(default_factory=dict)
    """Where a (venue, market) means something else by its columns than the header says."""
    period_time: str
    """The silver column that puts a row into a period."""
    period: Period
    key: tuple[str, ...]
    """Silver columns that identify a row within its series."""
    checks: tuple[Check, ...]
    missing: MissingRows
    """Finds the rows that are missing in a series."""

    @property
    def series_columns(self) -> tuple[str, ...]:
        """What tells the series of a table apart; they are its partitions."""
        return ("venue", "market", "symbol", *(("interval",) if self.by_interval else ()))
