"""The rules by which rows of bronze become rows of silver; no input or output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from marketlake.domain.archive import Frequency, Series
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.ingest.csv_parser import ROW_NUMBER

_SYMBOL, _SOURCE, _DAILY = "symbol", "source_key", "daily"
REJECTS = pl.Schema({_SOURCE: pl.String(), ROW_NUMBER: pl.Int64(), "raw": pl.String(), "reason": pl.String()})
"""Rejected rows: where each stands, the row as JSON, and why."""
_COMPARED_AT_ONCE = 50_000
"""Duplicates that are put beside the rows that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """Rows of one series of bronze between two moments, judged by the rules."""

    rows: pl.DataFrame
    """Columns of silver, `source_key` and `row_number`: what is kept, in order of time and key."""
    duplicates: int
    """How many further rows of a key that is kept there are."""
    rejected: pl.DataFrame
    """Columns of :data:`REJECTS`."""
    touching: frozenset[str]
    """Periods that have a duplicate of a row that is kept in another period."""


def refine_rows(
    bronze: pl.DataFrame, declared: TableType, series: Sequence[Series], start: datetime, end: datetime
) -> dict[str, Refinement]:
    """Judge rows of some series: checks first, then one row per key, then order.

    Of several rows with one key the earliest is kept, so that an aggregated trade that two days' files hold
    stays in the first; among rows of the same time the monthly file's, which the venue publishes last; then
    the last file's by key. A row that is dropped though it says something else than the one that is kept is
    rejected, not only dropped.

    Args:
        bronze: `symbol`, the columns that are parsed, and those of the rows' origin; also some time before and after.
        declared: the data type.
        series: whose rows they are; they differ in the symbol alone.
        start: the result begins here, and
        end: ends before this; what is around serves to know duplicates across these borders.

    Returns:
        by symbol, one for each series.
    """
    time = declared.silver.time
    mine = pl.col(time).is_between(start, end, closed="left")
    alike = series_values(declared.bronze.series, series[0])
    bronze = bronze.with_columns(
        pl.lit(value).alias(name) for name, value in alike.items() if name != _SYMBOL
    )
    # Rows have few sources and symbols: as an enumeration, one takes a byte or four, and is compared as fast.
    sources = pl.Enum(bronze[_SOURCE].unique().sort())
    symbols = pl.Enum(sorted(one.symbol for one in series))
    origin = [
        pl.col(name).cast(sources) if name == _SOURCE else pl.col(name) for name in declared.silver.origin
    ]
    daily = (pl.col("frequency") == Frequency.DAILY).alias(_DAILY)
    rows = bronze.select(pl.col(_SYMBOL).cast(symbols), *declared.values.values(), *origin, daily)
    del bronze  # each copy that is not needed any more is memory
    rows, broken = _checked(rows, declared)
    each = () if len(series) == 1 else (_SYMBOL,)
    key = (*each, *declared.silver.row_key)
    rows, dropped = _each_once(rows, declared, key)
    rejected = [_as_rejects(broken.filter(mine), declared)]
    touching: dict[str, set[str]] = {}
    for some in dropped.iter_slices(_COMPARED_AT_ONCE):
        against = some.join(rows, on=key, how="left", suffix=" kept")
        rejected.append(_as_rejects(_contradicting(against, declared).filter(mine), declared))
        periods = against.select(
            _SYMBOL,
            own=pl.col(time).dt.strftime(declared.silver.period),
            kept=pl.col(time if time in key else f"{time} kept").dt.strftime(declared.silver.period),
        )
        foreign = periods.filter(pl.col("own") != pl.col("kept")).select(_SYMBOL, "own").unique()
        for symbol, period in foreign.iter_rows():
            touching.setdefault(symbol, set()).add(period)
    kept = (
        rows.filter(mine)
        .select(_SYMBOL, *declared.values, *declared.silver.origin)
        .sort(*each, time, *declared.silver.row_key)
        .with_columns(pl.col(_SOURCE).cast(pl.String()))
    )
    bad = pl.concat(rejected).sort(declared.silver.origin)
    by_symbol, rejects = _by_symbol(kept), _by_symbol(bad)
    duplicates = dict(dropped.filter(mine)[_SYMBOL].value_counts().iter_rows())
    return {
        one.symbol: Refinement(
            rows=by_symbol.get(one.symbol, kept.clear().drop(_SYMBOL)),
            duplicates=duplicates.get(one.symbol, 0),
            rejected=rejects.get(one.symbol, bad.clear().drop(_SYMBOL)),
            touching=frozenset(touching.get(one.symbol, ())),
        )
        for one in series
    }


def _by_symbol(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    parts = rows.partition_by(_SYMBOL, as_dict=True, include_key=False)
    return {str(symbol): part for (symbol,), part in parts.items()}


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


def _each_once(
    rows: pl.DataFrame, declared: TableType, key: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row of each key, and the others."""
    distinct = pl.struct(key).n_unique() if len(key) > 1 else pl.col(*key).n_unique()
    if rows.select(distinct).item() == rows.height:
        return rows, rows.clear()
    # Rows with one key stand together, the one to keep first.
    ordered = rows.sort(
        *key,
        pl.col(declared.silver.time),
        _DAILY,
        _SOURCE,
        pl.col(ROW_NUMBER),
        descending=[*(False for _ in key), False, False, True, False],
    )
    first = pl.struct(key).is_first_distinct()
    return ordered.filter(first), ordered.filter(~first)


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
    return rows.with_columns(raw, pl.col(_SOURCE).cast(pl.String())).select(_SYMBOL, *REJECTS.names())
