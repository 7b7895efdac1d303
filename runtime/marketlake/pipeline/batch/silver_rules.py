"""The rules by which rows of bronze become rows of silver; no input or output."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from marketlake.domain.archive import Frequency, Series
from marketlake.domain.venue import load_venue
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.ingest.csv_parser import ROW_NUMBER

PERIOD = "period"
_ORIGIN = ("source_key", ROW_NUMBER)


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
        bronze: the declared columns, `row_number` and `source_key`.
        declared: the data type.
        series: whose rows they are.
    """
    own = declared.silver_by_market.get((series.venue, series.market), {})
    values = [own.get(name, expression).alias(name) for name, expression in declared.silver.items()]
    judged = bronze.select(
        *values,
        *_ORIGIN,
        pl.coalesce(
            [pl.lit(None, pl.String()), *(pl.when(c.broken).then(pl.lit(c.reason)) for c in declared.checks)]
        ).alias("reason"),
    ).with_columns(pl.col(declared.period_time).dt.strftime(declared.period).alias(PERIOD))
    good = _by_preference(judged.filter(pl.col("reason").is_null()), declared, series)
    first = pl.struct(declared.key).is_first_distinct()
    kept, dropped = good.filter(first), good.filter(~first)
    against = dropped.join(kept, on=declared.key, how="left", suffix=" kept")
    names = [name for name in declared.silver if name not in declared.key]
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name} kept")) for name in names)
    contradicting = against.filter(differs).with_columns(
        reason=pl.format(
            "another row of the same {} is kept, with other values: row {} of {}",
            pl.lit(", ".join(declared.key)),
            pl.col(f"{ROW_NUMBER} kept"),
            pl.col("source_key kept"),
        )
    )
    elsewhere = against.filter(pl.col(PERIOD) != pl.col(f"{PERIOD} kept"))
    columns = [*declared.silver, *_ORIGIN, PERIOD]
    return Refinement(
        rows=kept.select(columns).sort(declared.period_time, *declared.key),
        duplicates=dropped.select(columns),
        rejected=pl.concat(
            [
                _as_rejects(judged.filter(pl.col("reason").is_not_null()), declared),
                _as_rejects(contradicting, declared),
            ]
        ).sort(_ORIGIN),
        touching=frozenset(elsewhere[PERIOD].to_list()),
    )


def _by_preference(rows: pl.DataFrame, declared: TableType, series: Series) -> pl.DataFrame:
    """Rows with one key stand together, the one to keep first."""
    daily = _daily_files(rows["source_key"].unique().to_list(), series.venue)
    return rows.sort(
        *declared.key,
        pl.col(declared.time),
        pl.col("source_key").is_in(daily),
        pl.col("source_key"),
        pl.col(ROW_NUMBER),
        descending=[*(False for _ in declared.key), False, False, True, False],
    )


def _daily_files(source_keys: Iterable[str], venue: str) -> list[str]:
    plugin = load_venue(venue)
    parsed = {key: plugin.parse_key(key) for key in source_keys}
    return [key for key, fields in parsed.items() if fields and fields.frequency is Frequency.DAILY]


def _as_rejects(rows: pl.DataFrame, declared: TableType) -> pl.DataFrame:
    raw = pl.struct(list(declared.silver)).struct.json_encode().alias("raw")
    return rows.select("source_key", ROW_NUMBER, raw, "reason", PERIOD)
