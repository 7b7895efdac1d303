"""The rows of bronze, as silver is made from them: of some series, between two moments."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import polars as pl

from marketlake.domain.archive import Series
from marketlake.infrastructure.storage.delta import data_files, open_table, scan_files
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error
from marketlake.pipeline.batch.silver_rules import series_values
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.ingest.bronze import bronze_shape

OVERLAP = timedelta(hours=1)
"""How far beyond a period its rows are looked for: venues put rows of a boundary into either of two files."""
ROWS_AT_ONCE = 125_000
"""Rows of one row group, and about as many are refined at once."""
STEPS = {
    **{f"{minutes}m": timedelta(minutes=minutes) for minutes in (1, 3, 5, 15, 30)},
    **{f"{hours}h": timedelta(hours=hours) for hours in (1, 2, 4, 6, 8, 12)},
    "1s": timedelta(seconds=1),
    "1d": timedelta(days=1),
    "3d": timedelta(days=3),
    "1w": timedelta(weeks=1),
}
"""How far bars are apart."""


class BronzeRows:
    """The rows of a bronze table at one version."""

    def __init__(self, lake: Lake, declared: TableType) -> None:
        self._lake = lake
        self._bronze = declared.bronze
        self._shape = bronze_shape(declared.bronze)
        self._whole_days = declared.gaps.whole_days
        self._files = data_files(open_table(lake, self._shape))
        self._alike: dict[tuple[str | None, datetime, datetime], pl.DataFrame] = {}

    def windows(self, series: Series, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        """Cut the time between two moments so that no part has many more than :data:`ROWS_AT_ONCE` rows."""
        if self.most_rows(series, start, end) <= ROWS_AT_ONCE:
            return [(start, end)]
        unit = "1d" if self._whole_days else "1m"
        rows = self._scan(self._near([series], start, end), [series], start, end)
        counted = rows.group_by(pl.col(self._bronze.time).dt.truncate(unit).alias("at")).agg(pl.len())
        try:
            counts = counted.collect(engine="streaming").sort("at")
        except STORE_ERRORS as error:
            raise storage_error(error, f"reading {self._bronze.path}") from error
        cuts, size = [start], 0
        for at, count in counts.iter_rows():
            if size and size + count > ROWS_AT_ONCE:
                cuts.append(at)
                size = 0
            size += count
        return list(pairwise([*cuts, end]))

    def most_rows(self, series: Series, start: datetime, end: datetime) -> int:
        """Return how many rows of a series there are between two moments at most, as far as the table's log tells."""
        files = self._near([series], start, end)
        if files.is_empty():
            return 0
        most = int(files["num_records"].sum())
        if step := STEPS.get(series.interval or ""):
            time = self._bronze.time
            first, last = files[f"min.{time}"].min(), files[f"max.{time}"].max()
            if isinstance(first, datetime) and isinstance(last, datetime):
                bars = (min(end, last) - max(start, first)) // step + 1
                most = min(most, 2 * bars)  # from a daily and a monthly file
        return most

    def read(self, series: Sequence[Series], start: datetime, end: datetime) -> pl.DataFrame:
        """Return the rows of some series between two moments.

        Args:
            series: of one dataset; they differ in the symbol alone.
            start: the rows' time begins here, and
            end: ends before this.

        Returns:
            `symbol`, and all columns but those that are the series.
        """
        types = {
            column.name: column.polars
            for column in self._bronze.columns
            if column.name == "symbol" or column.name not in self._bronze.series
        }
        files = self._near(series, start, end)
        if files.is_empty():
            return pl.DataFrame(schema=types)
        try:
            return self._scan(files, series, start, end).select(list(types)).collect()
        except STORE_ERRORS as error:
            raise storage_error(error, f"reading {self._bronze.path}") from error

    def _near(self, series: Sequence[Series], start: datetime, end: datetime) -> pl.DataFrame:
        """The data files that may have rows of one of the series between two moments."""
        if self._files.is_empty():
            return self._files
        known = (series[0].interval, start, end)
        if known not in self._alike:  # asked for every symbol: the table's log is searched once
            self._alike[known] = self._files.filter(
                *(
                    (pl.col(f"min.{name}") <= value) & (pl.col(f"max.{name}") >= value)
                    for name, value in series_values(self._bronze.series, series[0]).items()
                    if name != "symbol"
                ),
                pl.col(f"max.{self._bronze.time}") >= start,
                pl.col(f"min.{self._bronze.time}") < end,
            )
        alike = self._alike[known]
        symbols = sorted(one.symbol for one in series)
        ranges = alike.select("min.symbol", "max.symbol").iter_rows()
        near = [
            place
            for place, (first, last) in enumerate(ranges)
            if bisect_left(symbols, first) < bisect_right(symbols, last)
        ]
        return alike[near]

    def _scan(
        self, files: pl.DataFrame, series: Sequence[Series], start: datetime, end: datetime
    ) -> pl.LazyFrame:
        """The rows between two moments of some series, which differ in the symbol alone."""
        wanted = [series_values(self._bronze.series, one) for one in series]
        mine = [pl.col(name).is_in({values[name] for values in wanted}) for name in self._bronze.series]
        within = pl.col(self._bronze.time).is_between(start, end, closed="left")
        return scan_files(self._lake, self._shape, files["path"]).filter(*mine, within)
