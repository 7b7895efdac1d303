"""Find the rows that are missing in a series, so that gaps are known.

A gap has `first` and `last` (UTC), `first_id` and `last_id` (null where rows have no numbers), `missing` (how many rows
are missing). Rows may be looked at part by part, in order: :attr:`GapFinder.within` each, :attr:`GapFinder.between` two
that follow each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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


Edge = Mapping[str, Any]
"""The least, or the greatest, value of each column that a finder looks at, in a part of a series."""


@dataclass(frozen=True, slots=True)
class GapFinder:
    """Finds the gaps of a series."""

    columns: tuple[str, ...]
    """What it looks at."""
    within: Callable[[pl.DataFrame, str | None], pl.DataFrame]
    """(rows of a part in order, interval) → its gaps."""
    between: Callable[[Edge, Edge, str | None], pl.DataFrame]
    """(greatest values of a part, least values of the next one, interval) → the gap between them, if there is one."""
    whole_days: bool = False
    """Whether a part has to consist of whole UTC days."""

    def edges(self, rows: pl.DataFrame) -> tuple[Edge, Edge] | None:
        """Return the least and the greatest values of a part; None if it has no rows."""
        if rows.is_empty():
            return None
        seen = rows.select(self.columns)
        return seen.min().row(0, named=True), seen.max().row(0, named=True)


def missing_bars() -> GapFinder:
    """Return a finder of missing bars; bars within a day are expected for whole UTC days.

    `first` and `last` are the open times of the first and last missing bar of a gap.
    """
    return GapFinder(("open_time",), _bars_within, _bars_between, whole_days=True)


def missing_ids(number: str, time: str) -> GapFinder:
    """Return a finder of the missing numbers of rows that are numbered without gaps.

    `first` and `last` are the times of the rows around a gap, `first_id` and `last_id` the missing numbers.
    """

    def within(rows: pl.DataFrame, interval: str | None) -> pl.DataFrame:  # noqa: ARG001 - rows have no interval
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

    return _of_neighbours((number, time), within)


def missing_fundings() -> GapFinder:
    """Return a finder of fundings that are missing between two rows, by the longer of their own intervals in hours.

    `first` and `last` are the times at which the first and the last missing funding was due. Between two parts, the
    longest interval of each counts.
    """
    return _of_neighbours(("funding_time", "funding_interval_hours"), _fundings_within)


def _of_neighbours(
    columns: tuple[str, ...], within: Callable[[pl.DataFrame, str | None], pl.DataFrame]
) -> GapFinder:
    """A finder that compares rows with their neighbours alone: two parts meet in two rows."""

    def between(last: Edge, first: Edge, interval: str | None) -> pl.DataFrame:
        return within(pl.DataFrame([dict(last), dict(first)]), interval).cast(GAP_SCHEMA)

    return GapFinder(columns, within, between)


def _bars_within(rows: pl.DataFrame, interval: str | None) -> pl.DataFrame:
    if interval is None or rows.is_empty():
        return GAP_SCHEMA.to_frame()
    times = rows.select("open_time")
    first, last = pl.col("open_time").min(), pl.col("open_time").max()
    if interval not in _LONG_INTERVALS:
        first = first.dt.truncate("1d")
        last = _last_of_day(last, interval)
    expected = times.select(pl.datetime_range(first, last, interval).alias("time"))
    if expected["time"].equals(times["open_time"]):
        return GAP_SCHEMA.to_frame()
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


def _bars_between(last: Edge, first: Edge, interval: str | None) -> pl.DataFrame:
    if interval is None:
        return GAP_SCHEMA.to_frame()
    begin, end = (pl.lit(edge["open_time"], pl.Datetime("us", "UTC")) for edge in (last, first))
    if interval not in _LONG_INTERVALS:  # the ends of both days are the parts' own
        begin, end = _last_of_day(begin, interval), end.dt.truncate("1d")
    missing = pl.select(pl.datetime_range(begin, end, interval, closed="none").alias("time"))
    return (
        missing.select(first=pl.col("time").min(), last=pl.col("time").max(), missing=pl.len().cast(pl.Int64))
        .filter(pl.col("missing") > 0)
        .with_columns(*_NO_ID)
        .select(GAP_SCHEMA.names())
    )


def _last_of_day(time: pl.Expr, interval: str) -> pl.Expr:
    """The open time of the last bar of a moment's UTC day."""
    return time.dt.truncate("1d").dt.offset_by("1d").dt.offset_by(f"-{interval}")


def _fundings_within(rows: pl.DataFrame, interval: str | None) -> pl.DataFrame:  # noqa: ARG001 - each row has its own
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
