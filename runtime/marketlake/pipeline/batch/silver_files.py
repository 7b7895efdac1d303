"""The data files of a silver table: series that have few rows share one, by the first characters of their symbols.

So as many data files come in daily life as there are letters, not as there are series, and each still has a narrow
range of symbols, by which readers pass over it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl
from deltalake import DeltaTable

from marketlake.domain.archive import Series
from marketlake.domain.period import Period, period_name
from marketlake.infrastructure.storage.delta import TableShape, data_files, scan_files
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error
from marketlake.pipeline.batch import bronze_rows
from marketlake.pipeline.batch.bronze_rows import STEPS
from marketlake.pipeline.batch.silver_rules import series_values
from marketlake.pipeline.contracts.contract import Continuity, SilverContract
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.quality.gaps import Edge
from marketlake.portions import portions

_MONTH = timedelta(days=31)
_FUNDING = timedelta(hours=1)
_LONGEST = {Period.DAY: timedelta(days=1), Period.MONTH: _MONTH, Period.YEAR: timedelta(days=366)}
_SHARED_BY = ((10_000, 1), (100_000, 2))
"""Up to how many rows of a period, and by how many characters, series share a data file.

Binance's 2,000 symbols begin with some 30 characters, and 250 pairs of them. A number may become smaller with a later
version, but not greater: the files of former ones would belong to several parts.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A period of the series that share a data file."""

    initials: str
    """What their symbols begin with."""
    interval: str | None
    period: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a data file has of one series."""

    rows: int
    first: Edge
    """The least value of each column that gaps are found by."""
    last: Edge
    """The greatest values."""


def silver_shape(declared: TableType) -> TableShape:
    """The silver table of a data type: each series' rows stand together in a data file."""
    return declared.silver.shape(declared.silver.series)


def initials(silver: SilverContract, series: Series) -> str:
    """Return what the symbols of the series begin with that share data files with this one; all of it if none does."""
    return series.symbol[: _shared_characters(silver, series.interval)]


class SilverFiles:
    """The data files of a silver table at one version that hold some series, or share their parts.

    Args:
        lake: where the table is.
        declared: its data type.
        table: at that version.
        series: they differ in symbol and interval alone.
    """

    def __init__(
        self, lake: Lake, declared: TableType, table: DeltaTable, series: Collection[Series]
    ) -> None:
        self._lake = lake
        self._silver = declared.silver
        self._shape = silver_shape(declared)
        self._edges = declared.gaps.columns
        self._contents: dict[str, dict[str, Content]] = {}
        self._parts: dict[tuple[str, str | None], dict[str, list[dict[str, Any]]]] = {}
        files = data_files(table)
        if files.is_empty():
            return
        ends = [f"{end}.{name}" for name in {*self._edges, self._silver.time} for end in ("min", "max")]
        wanted = ["path", "num_records", "min.symbol", "max.symbol", *ends]
        for interval in {one.interval for one in series}:
            some = [one for one in series if one.interval == interval]
            labels = series_values(self._silver.series, some[0], declared.fixed)
            characters = _shared_characters(self._silver, interval)
            own = pl.col("min.symbol") if characters is None else pl.col("min.symbol").str.head(characters)
            mine = files.filter(
                *(pl.col(f"min.{name}") == value for name, value in labels.items() if name != "symbol"),
                own.is_in({initials(self._silver, one) for one in some}),
            )
            for file in (
                mine.with_columns(own.alias("initials")).select("initials", *wanted).iter_rows(named=True)
            ):
                period = period_name(file[f"min.{self._silver.time}"].date(), self._silver.period)
                of_part = self._parts.setdefault((file["initials"], interval), {})
                of_part.setdefault(period, []).append(file)

    def paths(self, part: Part) -> list[str]:
        """Return the data files of a part."""
        return [file["path"] for file in self._of(part)]

    def periods(self, series: Series) -> set[str]:
        """Return the periods in which there are data files that may hold a series."""
        return set(self._parts.get((initials(self._silver, series), series.interval), ()))

    def edges(self, series: Series, period: str) -> tuple[Edge, Edge] | None:
        """Return the least and the greatest values of a series in a period; None if it has no rows there."""
        part = Part(initials(self._silver, series), series.interval, period)
        for file in self._of(part):
            if file["min.symbol"] <= series.symbol <= file["max.symbol"]:
                content = self._content(file).get(series.symbol)
                if content:
                    return content.first, content.last
        return None

    def carried(self, part: Part, rewritten: Collection[str]) -> Iterator[tuple[str, pl.DataFrame]]:
        """Yield the rows of a part's other series, in the order of their symbols.

        Args:
            part: of which some series are rewritten.
            rewritten: their symbols.
        """
        counts: Counter[str] = Counter()
        for file in self._of(part):
            held = self._content(file).items()
            counts.update({symbol: content.rows for symbol, content in held if symbol not in rewritten})
        order = ["symbol", self._silver.time, *self._silver.row_key]
        for symbols in portions(sorted(counts), counts.__getitem__, bronze_rows.ROWS_AT_ONCE):
            rows = self._scan(self.paths(part)).filter(pl.col("symbol").is_in(symbols))
            columns = ["symbol", *self._shape.columns.names]
            parts = self._read(rows.select(columns).sort(order)).partition_by(
                "symbol", as_dict=True, include_key=False
            )
            yield from ((symbol, parts[symbol,]) for symbol in symbols)

    def _of(self, part: Part) -> list[dict[str, Any]]:
        return self._parts.get((part.initials, part.interval), {}).get(part.period, [])

    def _content(self, file: Mapping[str, Any]) -> dict[str, Content]:
        """What a data file has, by symbol: from the table's log if it has one series, else read once."""
        path = file["path"]
        if path not in self._contents:
            if file["min.symbol"] == file["max.symbol"]:
                first, last = (
                    {name: file[f"{end}.{name}"] for name in self._edges} for end in ("min", "max")
                )
                self._contents[path] = {file["min.symbol"]: Content(file["num_records"], first, last)}
            else:
                self._contents[path] = self._counted(path)
        return self._contents[path]

    def _counted(self, path: str) -> dict[str, Content]:
        names = self._edges
        found = self._read(
            self._scan([path])
            .group_by("symbol")
            .agg(
                pl.len().alias("rows"),
                pl.struct(pl.col(name).min() for name in names).alias("first"),
                pl.struct(pl.col(name).max() for name in names).alias("last"),
            )
        )
        return {symbol: Content(rows, first, last) for symbol, rows, first, last in found.iter_rows()}

    def _scan(self, paths: Iterable[str]) -> pl.LazyFrame:
        return scan_files(self._lake, self._shape, paths)

    def _read(self, rows: pl.LazyFrame) -> pl.DataFrame:
        try:
            return rows.collect()
        except STORE_ERRORS as error:
            raise storage_error(error, f"reading {self._shape.path}") from error


def _shared_characters(silver: SilverContract, interval: str | None) -> int | None:
    """How many first characters of their symbols series share with whom they share data files; None for all."""
    match silver.continuity:
        case Continuity.NUMBERS:
            return None
        case Continuity.FUNDINGS:
            step = _FUNDING
        case Continuity.BARS:
            step = STEPS.get(interval or "", _MONTH)
    most = _LONGEST[silver.period] // step
    return next((characters for rows, characters in _SHARED_BY if most <= rows), None)
