"""The rules by which rows of bronze become rows of silver; no input or output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from marketlake.domain.archive import Frequency, Series
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.ingest.csv_parser import ROW_NUMBER

_SOURCE, _DAILY = "source_key", "daily"
REJECTS = pl.Schema({_SOURCE: pl.String(), ROW_NUMBER: pl.Int64(), "raw": pl.String(), "reason": pl.String()})
"""Rejected rows: where each stands, the row as JSON, and why."""
_COMPARED_AT_ONCE = 50_000
"""Duplicates that are put beside the rows that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """Rows of bronze between two moments, judged by the rules."""

    rows: pl.DataFrame
    """Columns of silver, `source_key` and `row_number`: what is kept, in order of time and key."""
    duplicates: int
    """How many further rows of a key that is kept there are."""
    rejected: pl.DataFrame
    """Columns of :data:`REJECTS`."""
    touching: frozenset[str]
    """Periods that have a duplicate of a row that is kept in another period."""


def refine_rows(
    bronze: pl.DataFrame, declared: TableType, series: Series, start: datetime, end: datetime
) -> Refinement:
    """Judge rows of one series: checks first, then one row per key, then order.

    Of several rows with one key the earliest is kept, so that an aggregated trade that two days' files hold
    stays in the first; among rows of the same time the monthly file's, which the venue publishes last; then
    the last file's by key. A row that is dropped though it says something else than the one that is kept is
    rejected, not only dropped.

    Args:
        bronze: the columns that are parsed, and those of the rows' origin; also some time before and after.
        declared: the data type.
        series: whose rows they are.
        start: the result begins here, and
        end: ends before this; what is around serves to know duplicates across these borders.
    """
    time, key = declared.silver.time, declared.silver.row_key
    mine = pl.col(time).is_between(start, end, closed="left")
    of_series = series_values(declared.bronze.series, series)
    bronze = bronze.with_columns(pl.lit(value).alias(name) for name, value in of_series.items())
    # Rows have few sources: as an enumeration, a key takes a byte instead of sixteen, and is compared as fast.
    sources = pl.Enum(bronze[_SOURCE].unique().sort())
    origin = [
        pl.col(name).cast(sources) if name == _SOURCE else pl.col(name) for name in declared.silver.origin
    ]
    daily = (pl.col("frequency") == Frequency.DAILY).alias(_DAILY)
    rows = bronze.select(*declared.values.values(), *origin, daily)
    del bronze  # each copy that is not needed any more is memory
    rows, broken = _checked(rows, declared)
    rows, dropped = _each_once(rows, declared)
    rejected = [_as_rejects(broken.filter(mine), declared)]
    touching: set[str] = set()
    for some in dropped.iter_slices(_COMPARED_AT_ONCE):
        against = some.join(rows, on=key, how="left", suffix=" kept")
        rejected.append(_as_rejects(_contradicting(against, declared).filter(mine), declared))
        periods = against.select(
            own=pl.col(time).dt.strftime(declared.silver.period),
            kept=pl.col(time if time in key else f"{time} kept").dt.strftime(declared.silver.period),
        )
        touching.update(periods.filter(pl.col("own") != pl.col("kept"))["own"])
    return Refinement(
        rows=rows.filter(mine)
        .select(*declared.values, *declared.silver.origin)
        .sort(time, *key)
        .with_columns(pl.col(_SOURCE).cast(pl.String())),
        duplicates=dropped.filter(mine).height,
        rejected=pl.concat(rejected).sort(declared.silver.origin),
        touching=frozenset(touching),
    )


def series_values(
    names: Sequence[str], series: Series, fixed: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the values that some series columns have in a series; `fixed` has those that it does not say itself."""
    values = {
        "venue": series.venue,
        "market": series.market,
        "symbol": series.symbol,
        "interval": series.interval or "",
        **(fixed or {}),
    }
    return {name: values[name] for name in names}


def _checked(rows: pl.DataFrame, declared: TableType) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that keep all promises, and the others with a column `reason`."""
    found = rows.select(check.broken.any().alias(str(n)) for n, check in enumerate(declared.checks)).row(0)
    failing = [check for check, is_broken in zip(declared.checks, found, strict=True) if is_broken]
    reasons = [pl.when(check.broken).then(pl.lit(check.reason)) for check in failing]
    if not reasons:
        return rows, rows.clear().with_columns(reason=pl.lit(None, pl.String()))
    judged = rows.with_columns(pl.coalesce([*reasons, pl.lit(None, pl.String())]).alias("reason"))
    whole = pl.col("reason").is_null()
    return judged.filter(whole).drop("reason"), judged.filter(~whole)


def _each_once(rows: pl.DataFrame, declared: TableType) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row of each key, and the others."""
    key = declared.silver.row_key
    if (
        rows.select(pl.struct(key).n_unique() if len(key) > 1 else pl.col(*key).n_unique()).item()
        == rows.height
    ):
        return rows, rows.clear()
    ordered = _by_preference(rows, declared)
    first = pl.struct(key).is_first_distinct()
    return ordered.filter(first), ordered.filter(~first)


def _by_preference(rows: pl.DataFrame, declared: TableType) -> pl.DataFrame:
    """Rows with one key stand together, the one to keep first."""
    key = declared.silver.row_key
    return rows.sort(
        *key,
        pl.col(declared.silver.time),
        _DAILY,
        _SOURCE,
        pl.col(ROW_NUMBER),
        descending=[*(False for _ in key), False, False, True, False],
    )


def _contradicting(against: pl.DataFrame, declared: TableType) -> pl.DataFrame:
    """The rows that say something else than the row of their key that is kept, with a column `reason`."""
    key = declared.silver.row_key
    names = [name for name in declared.values if name not in key]
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name} kept")) for name in names)
    return against.filter(differs).with_columns(
        reason=pl.format(
            "another row of the same {} is kept, with other values: row {} of {}",
            pl.lit(", ".join(key)),
            pl.col(f"{ROW_NUMBER} kept"),
            pl.col(f"{_SOURCE} kept").cast(pl.String()),
        )
    )


def _as_rejects(rows: pl.DataFrame, declared: TableType) -> pl.DataFrame:
    raw = pl.struct(list(declared.values)).struct.json_encode().alias("raw")
    return rows.with_columns(raw, pl.col(_SOURCE).cast(pl.String())).select(REJECTS.names())
