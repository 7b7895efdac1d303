"""Bronze → silver: rows in order, each once, within the promises of their data type, with their gaps known.

What is rewritten as a whole is a period of a series (a day of trades, a month of bars, a year of fundings).
It is read from all the source files in bronze that have rows in it, so daily and monthly files are
reconciled, and the result depends on nothing else. However many rows it has, some
:data:`~marketlake.pipeline.batch.bronze_rows.ROWS_AT_ONCE` are in memory.
A table of gaps is written along: those within a period, and that between a period and the one before it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from opentelemetry import trace

from marketlake.domain.archive import Series
from marketlake.domain.period import period_bounds, period_name
from marketlake.infrastructure.storage.delta import (
    DataFile,
    Replacement,
    Scope,
    TableShape,
    data_files,
    in_scopes,
    replace,
    write_file,
)
from marketlake.infrastructure.storage.stores import Lake
from marketlake.pipeline.batch import bronze_rows
from marketlake.pipeline.batch.bronze_rows import OVERLAP, BronzeRows
from marketlake.pipeline.batch.silver_rules import REJECTS, Refinement, refine_rows, series_values
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.contracts.tables import table_type
from marketlake.pipeline.quality.gaps import GAP_SCHEMA, Edge, GapFinder
from marketlake.pipeline.quality.quarantine import BadRows, quarantine
from marketlake.settings import Settings

REJECTED_AT_ONCE = 100_000
"""Rejected rows that are kept of one period; a period with more is as good as none. All are counted."""
GAPS = TableShape(
    path="gaps",
    columns=pa.schema(
        [
            ("interval", pa.string()),
            ("price_kind", pa.string()),
            ("first", pa.timestamp("us", "UTC")),
            ("last", pa.timestamp("us", "UTC")),
            ("first_id", pa.int64()),
            ("last_id", pa.int64()),
            ("missing", pa.int64()),
        ]
    ),
    labels=("table_name", "venue", "market", "symbol", "period"),
)

_tracer = trace.get_tracer("marketlake")


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows that are missing in a series; for `first` and `last` see :mod:`marketlake.pipeline.quality.gaps`."""

    first: datetime
    last: datetime
    missing: int
    """How many rows are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """What the rewritten periods of a silver table contain."""

    table: str
    """As it is queried, e.g. ``silver.candles``."""
    version: int
    """Of the table, with these rows."""
    periods: tuple[str, ...]
    rows: int
    duplicates: int
    """Rows of bronze left out because another row of the same key is there."""
    rejected: int
    """Rows of bronze that went to quarantine."""
    gaps: tuple[Gap, ...]


def silver_shape(declared: TableType) -> TableShape:
    """The silver table of a data type: one series in each data file."""
    return declared.silver.shape(declared.silver.series)


def refine(
    settings: Settings,
    *,
    dataset: str,
    venue: str,
    market: str,
    symbol: str,
    interval: str | None,
    days: Iterable[date],
) -> Refined:
    """Rewrite the periods of a silver table that contain one of these days from bronze.

    Safe to repeat, and safe to run at the same time as itself: whoever commits later has read bronze later.

    Args:
        settings: the environment.
        dataset: the data type as the venue writes it, e.g. ``aggTrades``.
        venue: its name.
        market: as in the venue's catalogue.
        symbol: as the venue writes it.
        interval: of bars; None where the data type has none.
        days: UTC days in which rows came, went or changed.

    Raises:
        UnsupportedDatasetError: no contract is mapped to the data type.
        StorageError: the object store failed.
        CommitConflictError: other writers kept changing the same periods. Silver is as it was then.
    """
    series = Series(venue=venue, market=market, data_type=dataset, symbol=symbol, interval=interval)
    return refine_series(Lake.of(settings.object_store), series, days)


def refine_series(lake: Lake, series: Series, days: Iterable[date]) -> Refined:
    """:func:`refine`, told where the lake is."""
    (refined,) = refine_many(lake, {series: days})
    return refined


def refine_many(lake: Lake, wanted: Mapping[Series, Iterable[date]]) -> list[Refined]:
    """:func:`refine_series` for many series of one dataset of a market, in one commit to each table.

    Memory: some :data:`~marketlake.pipeline.batch.bronze_rows.ROWS_AT_ONCE` rows, and what the tables' logs say of all
    data files.
    """
    first = next(iter(wanted))
    declared = table_type(first.venue, first.market, first.data_type)
    rewritings = [_Rewriting(lake, declared, series, days) for series, days in wanted.items()]
    attributes: dict[str, str | int] = {
        "marketlake.table": declared.silver.path,
        "marketlake.series": len(rewritings),
    }
    with _tracer.start_as_current_span("silver commit", attributes=attributes) as span:

        def write(table: DeltaTable) -> Replacement:
            bronze = BronzeRows(lake, declared)
            files = [file for some in _together(rewritings, bronze) for file in _written(some, bronze)]
            scopes = [scope for rewriting in rewritings for scope in rewriting.scopes()]
            others = data_files(table).filter(~in_scopes(scopes))
            for rewriting in rewritings:
                rewriting.look_around(others)
            return Replacement(scopes, files)

        version = replace(lake, silver_shape(declared), write)
        quarantine(lake, "silver", {name: bad for each in rewritings for name, bad in each.rejected()})
        _note_gaps(lake, rewritings)
        refined = [rewriting.refined(version) for rewriting in rewritings]
        span.set_attribute("marketlake.rows", sum(each.rows for each in refined))
        span.set_attribute("marketlake.rejected", sum(each.rejected for each in refined))
        return refined


def _note_gaps(lake: Lake, rewritings: Sequence["_Rewriting"]) -> None:
    found = [gaps for rewriting in rewritings for gaps in rewriting.gaps()]
    files = [file for scope, rows in found if (file := write_file(lake, GAPS, scope, [rows]))]
    replace(lake, GAPS, lambda _: Replacement([scope for scope, _ in found], files))


def _together(rewritings: Sequence["_Rewriting"], bronze: BronzeRows) -> Iterator[list["_Rewriting"]]:
    """Cut series into those whose rows are read at once: daily life has few rows of many series in each data file."""
    some: list[_Rewriting] = []
    rows = 0
    for rewriting in rewritings:
        more = sum(bronze.most_rows(rewriting.series, *time) for time in rewriting.times)
        if some and rows + more > bronze_rows.ROWS_AT_ONCE:
            yield some
            some, rows = [], 0
        some.append(rewriting)
        rows += more
    if some:
        yield some


def _written(rewritings: Sequence["_Rewriting"], bronze: BronzeRows) -> Iterator[DataFile]:
    if len(rewritings) > 1:
        wanted: dict[tuple[datetime, datetime], list[Series]] = {}
        for rewriting in rewritings:
            for time in rewriting.times:
                wanted.setdefault(time, []).append(rewriting.series)
        for (start, end), series in wanted.items():
            bronze.hold(series, start - OVERLAP, end + OVERLAP)
    for rewriting in rewritings:
        yield from rewriting.write(bronze)


class _Period:
    """What a period of a series contains, and what became of its rows."""

    def __init__(self, finder: GapFinder, interval: str | None) -> None:
        self._finder = finder
        self._interval = interval
        self._rejected: list[pl.DataFrame] = []
        self._gaps: list[pl.DataFrame] = []
        self.rows = self.duplicates = self.rejected = 0
        self.touching: frozenset[str] = frozenset()
        self.first: Edge | None = None
        self.last: Edge | None = None

    def add(self, found: Refinement) -> None:
        """Count the next rows in."""
        kept = max(0, REJECTED_AT_ONCE - self.rejected)
        if found.rejected.height and kept:
            self._rejected.append(found.rejected.head(kept))
        self.rows += found.rows.height
        self.duplicates += found.duplicates
        self.rejected += found.rejected.height
        self.touching |= found.touching
        self._gaps.append(self._finder.within(found.rows, self._interval))
        if edges := self._finder.edges(found.rows):
            first, last = edges
            if self.last is not None:
                self._gaps.append(self._finder.between(self.last, first, self._interval))
            self.first, self.last = self.first or first, last

    @property
    def rejects(self) -> pl.DataFrame:
        """The rows that were rejected."""
        return pl.concat(self._rejected) if self._rejected else REJECTS.to_frame()

    @property
    def gaps(self) -> pl.DataFrame:
        """What is missing between the first row and the last."""
        return pl.concat(self._gaps).sort("first") if self._gaps else GAP_SCHEMA.to_frame()


class _Rewriting:
    """Some periods of one series on their way to silver."""

    def __init__(self, lake: Lake, declared: TableType, series: Series, days: Iterable[date]) -> None:
        self._lake = lake
        self._declared = declared
        self._series = series
        self._asked = {period_name(day, declared.silver.period) for day in days}
        self._periods: dict[str, _Period] = {}
        self._borders: dict[str, pl.DataFrame] = {}

    @property
    def series(self) -> Series:
        """Whose periods they are."""
        return self._series

    @property
    def times(self) -> list[tuple[datetime, datetime]]:
        """First moments of the periods, and of those behind them."""
        return [period_bounds(period) for period in sorted(self._asked)]

    def write(self, bronze: BronzeRows) -> list[DataFile]:
        """Write the periods' rows; further periods follow that have a row which is kept in another one now."""
        files: list[DataFile] = []
        self._periods = {}
        wanted = set(self._asked)
        while left := sorted(wanted - self._periods.keys()):
            period = left[0]
            file = self._write_period(bronze, period)
            files += [file] if file else []
            wanted |= self._periods[period].touching
        return files

    def look_around(self, others: pl.DataFrame) -> None:
        """Find the gaps before the periods, and before those that follow them.

        Args:
            others: all data files of the table that stay (:func:`~marketlake.infrastructure.storage.delta.data_files`).
        """
        finder, time = self._declared.gaps, self._declared.silver.time
        known: dict[str, tuple[Edge, Edge]] = {
            name: (period.first, period.last)
            for name, period in self._periods.items()
            if period.first is not None and period.last is not None
        }
        if not others.is_empty():
            labels = [pl.col(f"min.{name}") == value for name, value in self._labels().items()]
            for file in others.filter(*labels).iter_rows(named=True):
                edges = ({name: file[f"{end}.{name}"] for name in finder.columns} for end in ("min", "max"))
                first, last = edges
                known[period_name(first[time].date(), self._declared.silver.period)] = (first, last)
        self._borders = {name: GAP_SCHEMA.to_frame() for name in self._periods}
        for former, later in pairwise(sorted(known)):
            if former in self._periods or later in self._periods or self._emptied_between(former, later):
                self._borders[later] = finder.between(
                    known[former][1], known[later][0], self._series.interval
                )

    def scopes(self) -> list[Scope]:
        """What is rewritten."""
        return [Scope(self._name(period), self._labels()) for period in sorted(self._periods)]

    def rejected(self) -> Iterator[tuple[str, BadRows]]:
        """The rows that were rejected, by the scope in quarantine."""
        about = {
            "venue": self._series.venue,
            "market": self._series.market,
            "data_type": self._series.data_type,
            "symbol": self._series.symbol,
            "interval": self._series.interval,
        }
        for name, period in self._periods.items():
            yield f"{self._declared.silver.name}/{self._name(name)}", BadRows(period.rejects, about)

    def gaps(self) -> Iterator[tuple[Scope, pl.DataFrame]]:
        """What is missing, by the scope in the table of gaps."""
        for name, period in self._periods.items():
            yield self._gap_scope(name), self._with_series(period.gaps)
        for name, gaps in self._borders.items():
            yield self._gap_scope(name, " before"), self._with_series(gaps)

    def _write_period(self, bronze: BronzeRows, name: str) -> DataFile | None:
        start, end = period_bounds(name)
        period = self._periods[name] = _Period(self._declared.gaps, self._series.interval)

        def frames() -> Iterator[pl.DataFrame]:
            for begin, until in bronze.windows(self._series, start, end):
                found = refine_rows(
                    bronze.read(self._series, begin - OVERLAP, until + OVERLAP),
                    self._declared,
                    self._series,
                    begin,
                    until,
                )
                period.add(found)
                yield from found.rows.iter_slices(bronze_rows.ROWS_AT_ONCE)

        scope = Scope(self._name(name), self._labels())
        return write_file(self._lake, silver_shape(self._declared), scope, frames())

    def refined(self, version: int) -> Refined:
        """What the periods contain."""
        found = [period.gaps for period in self._periods.values()] + list(self._borders.values())
        gaps = [Gap(*row) for each in found for row in each["first", "last", "missing"].rows()]
        return Refined(
            table=self._declared.silver.table,
            version=version,
            periods=tuple(sorted(self._periods)),
            rows=sum(period.rows for period in self._periods.values()),
            duplicates=sum(period.duplicates for period in self._periods.values()),
            rejected=sum(period.rejected for period in self._periods.values()),
            gaps=tuple(sorted(gaps, key=lambda gap: gap.first)),
        )

    def _emptied_between(self, former: str, later: str) -> bool:
        """Whether a period between these two was rewritten, and has no rows now."""
        return any(former < name < later for name in self._periods)

    def _labels(self) -> dict[str, str]:
        return series_values(self._declared.silver.series, self._series, self._declared.fixed)

    def _name(self, period: str) -> str:
        return "/".join([*self._labels().values(), period])

    def _gap_scope(self, period: str, part: str = "") -> Scope:
        known = {"table_name": self._declared.silver.name, "period": period}
        named = {"venue": self._series.venue, "market": self._series.market, "symbol": self._series.symbol}
        return Scope(f"{self._declared.silver.name}/{self._name(period)}{part}", {**known, **named})

    def _with_series(self, gaps: pl.DataFrame) -> pl.DataFrame:
        kind = self._declared.fixed.get("price_kind")
        return gaps.select(
            pl.lit(self._series.interval, pl.String()).alias("interval"),
            pl.lit(kind, pl.String()).alias("price_kind"),
            *GAP_SCHEMA.names(),
        )
