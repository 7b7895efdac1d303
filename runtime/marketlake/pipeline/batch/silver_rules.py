"""The rules by which rows of bronze become rows of silver; no input or output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from marketlake.domain.archive import Frequency, Series
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.ingest.csv_parser import ROW_NUMBER

PERIOD = "period"
_FREQUENCY = "frequency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """Rows of bronze, judged by the rules. Each frame has a column `period`."""

    rows: pl.DataFrame
    """Columns of silver, `source_key` and `row_number`: what is kept, in order of time and key."""
    duplicates: pl.DataFrame
    """Further rows of a key that is kept, with the same columns."""
    rejected: pl.DataFrame
    """`source_key`, `row_number`, `raw` (the row as JSON), `reason`."""
    touching: frozenset[str]
    """Periods that have a duplicate of a row that is kept in another period."""


def refine_rows(bronze: pl.DataFrame, declared: TableType, series: Series) -> Refinement:
    """Judge rows of one series: checks first, then one row per key, then order.

    Of several rows with one key the earliest is kept, so that an aggregated trade that two days' files hold
    stays in the first; among rows of the same time the monthly file's, which the venue publishes last; then
    the last file's by key. A row that is dropped though it says something else than the one that is kept is
    rejected, not only dropped.

    Args:
        bronze: the columns that are parsed, and those of the rows' origin.
        declared: the data type.
        series: whose rows they are.
    """
    key = declared.silver.row_key
    of_series = series_values(declared.bronze.series, series)
    sourced = bronze.with_columns(pl.lit(value).alias(name) for name, value in of_series.items())
    harmonised = sourced.select(*declared.values.values(), *declared.silver.origin, _FREQUENCY)
    judged = harmonised.with_columns(
        _reason(harmonised, declared),
        pl.col(declared.silver.time).dt.strftime(declared.silver.period).alias(PERIOD),
    )
    good = _by_preference(judged.filter(pl.col("reason").is_null()), declared)
    first = pl.struct(key).is_first_distinct()
    kept, dropped = good.filter(first), good.filter(~first)
    against = dropped.join(kept, on=key, how="left", suffix=" kept")
    names = [name for name in declared.values if name not in key]
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name} kept")) for name in names)
    contradicting = against.filter(differs).with_columns(
        reason=pl.format(
            "another row of the same {} is kept, with other values: row {} of {}",
            pl.lit(", ".join(key)),
            pl.col(f"{ROW_NUMBER} kept"),
            pl.col("source_key kept"),
        )
    )
    elsewhere = against.filter(pl.col(PERIOD) != pl.col(f"{PERIOD} kept"))
    columns = [*declared.values, *declared.silver.origin, PERIOD]
    return Refinement(
        rows=kept.select(columns).sort(declared.silver.time, *key),
        duplicates=dropped.select(columns),
        rejected=pl.concat(
            [
                _as_rejects(judged.filter(pl.col("reason").is_not_null()), declared),
                _as_rejects(contradicting, declared),
            ]
        ).sort(declared.silver.origin),
        touching=frozenset(elsewhere[PERIOD].to_list()),
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


def _reason(rows: pl.DataFrame, declared: TableType) -> pl.Expr:
    """Why a row is rejected, null if it is not. Only of checks that some row breaks is each row asked."""
    broken = rows.select(check.broken.any().alias(str(n)) for n, check in enumerate(declared.checks)).row(0)
    failing = [check for check, is_broken in zip(declared.checks, broken, strict=True) if is_broken]
    reasons = [pl.when(check.broken).then(pl.lit(check.reason)) for check in failing]
    return pl.coalesce([*reasons, pl.lit(None, pl.String())]).alias("reason")


def _by_preference(rows: pl.DataFrame, declared: TableType) -> pl.DataFrame:
    """Rows with one key stand together, the one to keep first."""
    key = declared.silver.row_key
    return rows.sort(
        *key,
        pl.col(declared.silver.time),
        pl.col(_FREQUENCY) == Frequency.DAILY,
        pl.col("source_key"),
        pl.col(ROW_NUMBER),
        descending=[*(False for _ in key), False, False, True, False],
    )


def _as_rejects(rows: pl.DataFrame, declared: TableType) -> pl.DataFrame:
    raw = pl.struct(list(declared.values)).struct.json_encode().alias("raw")
    return rows.select("source_key", ROW_NUMBER, raw, "reason", PERIOD)
