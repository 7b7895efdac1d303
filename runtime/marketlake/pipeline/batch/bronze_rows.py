"""The rows of bronze, as silver is made from them: of one series, between two moments."""

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
ROWS_AT_ONCE = 250_000
"""Rows of one row group, and about as many are refined at once."""
_STEPS = {
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
        self._held: dict[tuple[Series, datetime, datetime], pl.DataFrame] = {}
        self._lake = lake
        self._bronze = declared.bronze
        self._shape = bronze_shape(declared.bronze)
        self._whole_days = declared.gaps.whole_days
        self._files = data_files(open_table(lake, self._shape))

    def windows(self, series: Series, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        """Cut the time between two moments so that no part has many more than :data:`ROWS_AT_ONCE` rows."""
        if self.most_rows(series, start, end) <= ROWS_AT_ONCE:
            return [(start, end)]
        files = self._near(series, start, end)
        unit = "1d" if self._whole_days else "1m"
        rows = self._scan(files, [series], start, end)
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
        files = self._near(series, start, end)
        if files.is_empty():
            return 0
        most = int(files["num_records"].sum())
        if step := _STEPS.get(series.interval or ""):
            time = self._bronze.time
            first, last = files[f"min.{time}"].min(), files[f"max.{time}"].max()
            if isinstance(first, datetime) and isinstance(last, datetime):
                bars = (min(end, last) - max(start, first)) // step + 1
                most = min(most, 2 * bars)  # from a daily and a monthly file
        return most

    def hold(self, series: Sequence[Series], start: datetime, end: datetime) -> None:
        """Read the rows of some series between two moments at once, for :meth:`read` to return."""
        near = pl.concat([self._near(one, start, end) for one in series]).unique("path", maintain_order=True)
        if near.is_empty():
            return
        named = self._bronze.series
        rows = self._collected(near, series, start, end)
        parts = rows.partition_by(named, as_dict=True)
        for one in series:
            values = series_values(named, one)
            part = parts.get(tuple(values[name] for name in named), rows.clear())
            self._held[one, start, end] = part.select(list(self._types))

    def read(self, series: Series, start: datetime, end: datetime) -> pl.DataFrame:
        """Return the rows of a series between two moments: all columns but those that are the series."""
        held = self._held.pop((series, start, end), None)
        if held is not None:
            return held
        files = self._near(series, start, end)
        if files.is_empty():
            return pl.DataFrame(schema=self._types)
        return self._collected(files, [series], start, end).select(list(self._types))

    @property
    def _types(self) -> dict[str, pl.DataType]:
        """The columns that are not the series."""
        return {
            column.name: column.polars
            for column in self._bronze.columns
            if column.name not in self._bronze.series
        }

    def _near(self, series: Series, start: datetime, end: datetime) -> pl.DataFrame:
        """The data files that may have rows of a series between two moments."""
        if self._files.is_empty():
            return self._files
        time = self._bronze.time
        own = [
            (pl.col(f"min.{name}") <= value) & (pl.col(f"max.{name}") >= value)
            for name, value in series_values(self._bronze.series, series).items()
        ]
        near = (pl.col(f"max.{time}") >= start) & (pl.col(f"min.{time}") < end)
        return self._files.filter(*own, near)

    def _collected(
        self, files: pl.DataFrame, series: Sequence[Series], start: datetime, end: datetime
    ) -> pl.DataFrame:
        try:
            return self._scan(files, series, start, end).collect()
        except STORE_ERRORS as error:
            raise storage_error(error, f"reading {self._bronze.path}") from error

    def _scan(
        self, files: pl.DataFrame, series: Sequence[Series], start: datetime, end: datetime
    ) -> pl.LazyFrame:
        """The rows between two moments that have the values of some series, each column for itself."""
        wanted = [series_values(self._bronze.series, one) for one in series]
        mine = [pl.col(name).is_in({values[name] for values in wanted}) for name in self._bronze.series]
        within = pl.col(self._bronze.time).is_between(start, end, closed="left")
        return scan_files(self._lake, self._shape, files["path"]).filter(*mine, within)
