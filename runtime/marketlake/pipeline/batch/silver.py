"""Bronze → silver: rows in order, each once, within the promises of their data type, with their gaps known.

What is rewritten as a whole is a period of a series (a day of trades, a month of bars, a year of fundings).
It is read from all the source files in bronze that have rows in it, so daily and monthly files are
reconciled, and the result depends on nothing else. However many rows it has, some
:data:`~marketlake.pipeline.batch.bronze_rows.ROWS_AT_ONCE` are in memory.
Series of few rows share a data file (:mod:`marketlake.pipeline.batch.silver_files`): the rows of those that are not
rewritten are carried over.
A table of gaps is written along: those within a period, and that between a period and the one before it.
"""

import dataclasses
import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby

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
    replace,
    replace_few,
    write_blocks,
    write_file,
)
from marketlake.infrastructure.storage.parquet import Block, Run
from marketlake.infrastructure.storage.stores import Lake
from marketlake.pipeline.batch import bronze_rows
from marketlake.pipeline.batch.bronze_rows import OVERLAP, BronzeRows
from marketlake.pipeline.batch.silver_files import Part, SilverFiles, initials, silver_shape
from marketlake.pipeline.batch.silver_rules import REJECTS, Refinement, refine_rows, series_values
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.contracts.tables import table_type
from marketlake.pipeline.quality.gaps import GAP_SCHEMA, Edge, GapFinder
from marketlake.pipeline.quality.quarantine import BadRows, quarantine
from marketlake.portions import portions
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
    """Within the periods, and those before and behind them that may have changed."""


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
    rewritings = [_Rewriting(declared, series, days) for series, days in wanted.items()]
    attributes: dict[str, str | int] = {
        "marketlake.table": declared.silver.path,
        "marketlake.series": len(rewritings),
    }
    tried = False
    with _tracer.start_as_current_span("silver commit", attributes=attributes) as span:

        def write(table: DeltaTable) -> Replacement:
            nonlocal tried
            files = SilverFiles(lake, declared, table, wanted)
            written = _Writing(lake, declared, files, rewritings).write()
            for rewriting in rewritings:
                rewriting.look_around(files, everywhere=tried)
            tried = True
            # Before the rows are visible: whoever dies in between is followed by one who finds the former rows, and
            # looks again.
            quarantine(lake, "silver", {name: bad for each in rewritings for name, bad in each.rejected()})
            _note_gaps(lake, rewritings)
            scopes = [_scope(declared, first, part) for part in written]
            # A worker of a former release, which knows nothing of parts, may be at work on a series of them.
            scopes += [scope for each in rewritings for scope in each.scopes()]
            return Replacement(
                list(dict.fromkeys(scopes)),
                [file for file in written.values() if file],
                merged=[path for part in written for path in files.paths(part)],
            )

        version = replace(lake, silver_shape(declared), write)
        refined = [rewriting.refined(version) for rewriting in rewritings]
        span.set_attribute("marketlake.rows", sum(each.rows for each in refined))
        span.set_attribute("marketlake.rejected", sum(each.rejected for each in refined))
        return refined


def _note_gaps(lake: Lake, rewritings: Sequence["_Rewriting"]) -> None:
    found = {scope: rows for rewriting in rewritings for scope, rows in rewriting.gaps()}
    files: dict[Scope, DataFile] = {}
    for scope, rows in found.items():
        if not rows.is_empty() and (file := write_file(lake, GAPS, scope, [rows])):
            files[scope] = file
    replace_few(lake, GAPS, found, files)


def _scope(declared: TableType, alike: Series, part: Part) -> Scope:
    shared = dataclasses.replace(alike, symbol=part.initials, interval=part.interval)
    labels = series_values(declared.silver.series, shared, declared.fixed)
    return Scope("/".join([*labels.values(), part.period]))


class _Writing:
    """The rows of some series on their way into the data files of silver."""

    def __init__(
        self, lake: Lake, declared: TableType, files: SilverFiles, rewritings: Sequence["_Rewriting"]
    ) -> None:
        self._lake = lake
        self._declared = declared
        self._files = files
        self._rewritings = sorted(rewritings, key=lambda each: each.series.symbol)
        self._bronze = BronzeRows(lake, declared)

    def write(self) -> dict[Part, DataFile | None]:
        """Write all that is asked for; further periods follow that have a row which is kept in another one now.

        Returns:
            The parts with their new data files; None where no rows are left.
        """
        written: dict[Part, DataFile | None] = {}
        left: dict[tuple[str | None, str], list[_Rewriting]] = {}
        for rewriting in self._rewritings:
            for period in rewriting.begin():
                left.setdefault((rewriting.series.interval, period), []).append(rewriting)
        while left:
            interval, period = where = min(left, key=lambda key: key[1])
            asked = left.pop(where)
            shared = {rewriting.initials for rewriting in asked}
            some = [  # who follows later into a part that was written has it written once more
                each
                for each in self._rewritings
                if each.series.interval == interval
                and each.initials in shared
                and (each in asked or each.has(period))
            ]
            for shares, each in groupby(self._refined(some, period), key=lambda pair: pair[0].initials):
                part = Part(shares, interval, period)
                symbols = {one.series.symbol for one in some if one.initials == shares}
                written[part] = self._file(part, symbols, each)
            for rewriting in some:
                for touched in rewriting.touching(period):
                    left.setdefault((interval, touched), []).append(rewriting)
        return written

    def _refined(
        self, some: Sequence["_Rewriting"], period: str
    ) -> Iterator[tuple["_Rewriting", Iterable[pl.DataFrame]]]:
        """The rows of a period, series by series in their order; few of them are read at once."""
        start, end = period_bounds(period)

        def most_rows(rewriting: _Rewriting) -> int:
            return self._bronze.most_rows(rewriting.series, start, end)

        # Daily life has few rows of many series in each data file.
        for together in portions(some, most_rows, bronze_rows.ROWS_AT_ONCE):
            if len(together) == 1:
                yield together[0], self._windows(together[0], period)
                continue
            series = [rewriting.series for rewriting in together]
            rows = self._bronze.read(series, start - OVERLAP, end + OVERLAP)
            found = refine_rows(rows, self._declared, series, start, end)
            for rewriting in together:
                refinement = found.pop(rewriting.series.symbol)
                rewriting.start(period).add(refinement)
                yield rewriting, [refinement.rows]

    def _windows(self, rewriting: "_Rewriting", period: str) -> Iterator[pl.DataFrame]:
        series, contained = rewriting.series, rewriting.start(period)
        for begin, until in self._bronze.windows(series, *period_bounds(period)):
            rows = self._bronze.read([series], begin - OVERLAP, until + OVERLAP)
            found = refine_rows(rows, self._declared, [series], begin, until)[series.symbol]
            contained.add(found)
            yield from found.rows.iter_slices(bronze_rows.ROWS_AT_ONCE)

    def _file(
        self,
        part: Part,
        symbols: Collection[str],
        refined: Iterable[tuple["_Rewriting", Iterable[pl.DataFrame]]],
    ) -> DataFile | None:
        """Write the data file of a part: the series that are refined, and those that are carried over."""
        new = ((rewriting.series, frame) for rewriting, frames in refined for frame in frames)
        alike = self._rewritings[0].series
        others = (
            (dataclasses.replace(alike, symbol=symbol, interval=part.interval), rows)
            for symbol, rows in self._files.carried(part, symbols)
        )
        rows = heapq.merge(new, others, key=lambda pair: pair[0].symbol)
        key = _scope(self._declared, alike, part).new_key()
        return write_blocks(self._lake, silver_shape(self._declared), key, self._blocks(rows))

    def _blocks(self, frames: Iterable[tuple[Series, pl.DataFrame]]) -> Iterator[Block]:
        """Put the rows of series that follow each other into blocks of some rows."""
        some: list[pl.DataFrame] = []
        runs: list[Run] = []
        height = 0
        for series, rows in frames:
            if height and height + rows.height > bronze_rows.ROWS_AT_ONCE:
                yield Block(pl.concat(some), tuple(runs))
                some, runs, height = [], [], 0
            if rows.height:
                labels = series_values(self._declared.silver.series, series, self._declared.fixed)
                some.append(rows)
                runs.append(Run(rows.height, labels))
                height += rows.height
        if height:
            yield Block(pl.concat(some), tuple(runs))


class _Period:
    """What a period of a series contains, and what became of its rows."""

    def __init__(self, finder: GapFinder, interval: str | None) -> None:
        self._finder = finder
        self._interval = interval
        self._rejected: list[pl.DataFrame] = []
        self._gaps: list[pl.DataFrame] = []
        self.rows = self.duplicates = self.rejected = 0
        self.touching: frozenset[str] = frozenset()
        self.edges: tuple[Edge, Edge] | None = None
        """The least and the greatest values of its first and its last rows."""

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
            if self.edges is not None:
                self._gaps.append(self._finder.between(self.edges[1], first, self._interval))
            self.edges = (self.edges[0] if self.edges else first, last)

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

    def __init__(self, declared: TableType, series: Series, days: Iterable[date]) -> None:
        self._declared = declared
        self._asked = {period_name(day, declared.silver.period) for day in days}
        self._periods: dict[str, _Period] = {}
        self._borders: dict[str, pl.DataFrame] = {}
        self.series = series
        self.initials = initials(declared.silver, series)

    def begin(self) -> list[str]:
        """Forget what was found before, and return the periods that are asked for."""
        self._periods = {}
        return sorted(self._asked)

    def start(self, period: str) -> _Period:
        """Begin to refine a period, whose content is to be added."""
        self._periods[period] = _Period(self._declared.gaps, self.series.interval)
        return self._periods[period]

    def has(self, period: str) -> bool:
        """Whether a period was begun."""
        return period in self._periods

    def touching(self, period: str) -> frozenset[str]:
        """Return the periods not begun yet that have a duplicate of one of the period's rows."""
        return self._periods[period].touching - self._periods.keys()

    def look_around(self, files: SilverFiles, *, everywhere: bool) -> None:
        """Find the gaps before the periods, and before those that follow them.

        Where a period begins and ends as it did, what is missing before and behind it has not changed.

        Args:
            files: the table as it was.
            everywhere: look also there.
        """
        periods = sorted(self._periods.keys() | files.periods(self.series))

        def edges(period: str) -> tuple[Edge, Edge] | None:
            return self._periods[period].edges if self.has(period) else files.edges(self.series, period)

        def nearest(others: Iterable[str]) -> str | None:
            return next((other for other in others if edges(other)), None)

        self._borders = {}
        changed: set[str | None] = set()
        for name, period in self._periods.items():
            now, before = period.edges, files.edges(self.series, name)
            if now is None:
                self._borders[name] = GAP_SCHEMA.to_frame()
            elif everywhere or before is None or now[0] != before[0]:
                changed.add(name)
            if everywhere or now is None or before is None or now[1] != before[1]:
                changed.add(nearest(other for other in periods if other > name))
        for name in filter(None, changed):
            former = nearest(other for other in reversed(periods) if other < name)
            last, first = edges(former) if former else None, edges(name)
            self._borders[name] = (
                self._declared.gaps.between(last[1], first[0], self.series.interval)
                if last and first
                else GAP_SCHEMA.to_frame()
            )

    def scopes(self) -> list[Scope]:
        """Name the periods of this series by itself."""
        return [Scope(self._name(period)) for period in sorted(self._periods)]

    def rejected(self) -> Iterator[tuple[str, BadRows]]:
        """The rows that were rejected, by the scope in quarantine."""
        about = {
            "venue": self.series.venue,
            "market": self.series.market,
            "data_type": self.series.data_type,
            "symbol": self.series.symbol,
            "interval": self.series.interval,
        }
        for name, period in self._periods.items():
            yield f"{self._declared.silver.name}/{self._name(name)}", BadRows(period.rejects, about)

    def gaps(self) -> Iterator[tuple[Scope, pl.DataFrame]]:
        """What is missing, by the scope in the table of gaps."""
        for name, period in self._periods.items():
            yield self._gap_scope(name), self._with_series(period.gaps)
        for name, gaps in self._borders.items():
            yield self._gap_scope(name, " before"), self._with_series(gaps)

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

    def _labels(self) -> dict[str, str]:
        return series_values(self._declared.silver.series, self.series, self._declared.fixed)

    def _name(self, period: str) -> str:
        return "/".join([*self._labels().values(), period])

    def _gap_scope(self, period: str, part: str = "") -> Scope:
        known = {"table_name": self._declared.silver.name, "period": period}
        named = {"venue": self.series.venue, "market": self.series.market, "symbol": self.series.symbol}
        return Scope(f"{self._declared.silver.name}/{self._name(period)}{part}", {**known, **named})

    def _with_series(self, gaps: pl.DataFrame) -> pl.DataFrame:
        kind = self._declared.fixed.get("price_kind")
        if gaps.is_empty():  # as nearly always: nobody asks for its columns
            return gaps
        return gaps.select(
            pl.lit(self.series.interval, pl.String()).alias("interval"),
            pl.lit(kind, pl.String()).alias("price_kind"),
            *GAP_SCHEMA.names(),
        )
