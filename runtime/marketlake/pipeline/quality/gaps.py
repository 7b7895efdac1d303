"""Find the rows that are missing in a series, so that gaps are known.

Each function takes the rows of one period, in order, and gives one row per gap: `first` and `last` (UTC),
`first_id` and `last_id` (null where rows have no numbers), `missing` (how many rows are missing).
"""

from collections.abc import Callable

import polars as pl

GAP_SCHEMA = pl.Schema(
    {
        "first": pl.Datetime("us", "UTC"),
        "last": pl.Datetime("us", "UTC"),
        "first_id": pl.Int64(),
        "last_id": pl.Int64(),
        "missing": pl.Int64(),
    }
)
_NO_ID = (pl.lit(None, pl.Int64).alias("first_id"), pl.lit(None, pl.Int64).alias("last_id"))
_LONG_INTERVALS = ("1d", "3d", "1w", "1mo")


def missing_bars(rows: pl.DataFrame, interval: str | None) -> pl.DataFrame:
    """Return the bars that are missing; bars within a day are expected for whole UTC days.

    `first` and `last` are the open times of the first and last missing bar of a gap.
    """
    if interval is None or rows.is_empty():
        return GAP_SCHEMA.to_frame()
    times = rows.select("open_time")
    first, last = pl.col("open_time").min(), pl.col("open_time").max()
    if interval not in _LONG_INTERVALS:
        first = first.dt.truncate("1d")
        last = last.dt.truncate("1d").dt.offset_by("1d").dt.offset_by(f"-{interval}")
    expected = times.select(pl.datetime_range(first, last, interval).alias("time"))
    return (
        expected.join(times.with_columns(there=True), left_on="time", right_on="open_time", how="left")
        .sort("time")
        .with_columns(absent=pl.col("there").is_null())
        .with_columns(run=pl.col("absent").rle_id())
        .filter("absent")
        .group_by("run", maintain_order=True)
        .agg(first=pl.col("time").first(), last=pl.col("time").last(), missing=pl.len().cast(pl.Int64))
        .with_columns(*_NO_ID)
        .select(GAP_SCHEMA.names())
    )


def missing_ids(number: str, time: str) -> Callable[[pl.DataFrame, str | None], pl.DataFrame]:
    """Return a function that finds the missing numbers of rows that are numbered without gaps.

    `first` and `last` are the times of the rows around a gap, `first_id` and `last_id` the missing numbers.
    """

    def missing(rows: pl.DataFrame, interval: str | None) -> pl.DataFrame:  # noqa: ARG001 - rows have no interval
        before = pl.col(number).shift()
        return (
            rows.sort(number)
            .select(
                first=pl.col(time).shift(),
                last=pl.col(time),
                first_id=before + 1,
                last_id=pl.col(number) - 1,
                missing=pl.col(number) - before - 1,
            )
            .filter(pl.col("missing") > 0)
        )

    return missing


def missing_fundings(rows: pl.DataFrame, interval: str | None) -> pl.DataFrame:  # noqa: ARG001 - each row has its own
    """Return the fundings that are missing between two rows, by the longer of their own intervals (1, 4 or 8 hours).

    `first` and `last` are the times at which the first and the last missing funding was due.
    """
    hours = pl.max_horizontal("funding_interval_hours", pl.col("funding_interval_hours").shift())
    step = pl.duration(hours=hours)
    between = pl.col("funding_time") - pl.col("funding_time").shift()
    return (
        rows.select(
            first=pl.col("funding_time").shift() + step,
            last=pl.col("funding_time") - step,
            missing=(between.dt.total_seconds() / (hours * 3600)).round().cast(pl.Int64) - 1,
        )
        .filter(pl.col("missing") > 0)
        .with_columns(*_NO_ID)
        .select(GAP_SCHEMA.names())
    )
