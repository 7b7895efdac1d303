"""Bronze → silver: rows in order, each once, within the promises of their data type, with their gaps known.

What is rewritten as a whole is a period of a series (a day of trades, a month of bars, a year of fundings).
It is read from all the source files in bronze that have rows in it, so daily and monthly files are
reconciled, and the result depends on nothing else. A table of gaps is written along.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from opentelemetry import trace

from marketlake.domain.archive import Series
from marketlake.domain.period import period_bounds, period_name
from marketlake.infrastructure.storage.delta import (
    DataFile,
    Scope,
    TableShape,
    data_files,
    open_table,
    replace,
    write_file,
)
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error
from marketlake.pipeline.batch.silver_rules import PERIOD, Refinement, refine_rows, series_values
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.contracts.tables import table_type
from marketlake.pipeline.ingest.bronze import bronze_shape
from marketlake.pipeline.quality.gaps import GAP_SCHEMA
from marketlake.pipeline.quality.quarantine import quarantine
from marketlake.settings import Settings

OVERLAP = timedelta(hours=1)
"""How far beyond a period its rows are looked for: venues put rows of a boundary into either of two files."""
ROWS_AT_ONCE = 500_000
"""Rows of one row group."""
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
    constants=("table_name", "venue", "market", "symbol", "period"),
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
    return declared.silver.shape(constants=declared.silver.series)


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
    declared = table_type(series.venue, series.market, series.data_type)
    periods = {period_name(day, declared.silver.period) for day in days}
    attributes = {
        "marketlake.venue": series.venue,
        "marketlake.market": series.market,
        "marketlake.symbol": series.symbol,
        "marketlake.table": declared.silver.path,
    }
    with _tracer.start_as_current_span("silver commit", attributes=attributes) as span:
        while True:
            rewriting = _Rewriting(lake, declared, series, sorted(periods))
            version = rewriting.run()
            if version is not None:
                break
            periods |= rewriting.touching
        rewriting.note()
        refined = rewriting.refined(version)
        span.set_attribute("marketlake.rows", refined.rows)
        span.set_attribute("marketlake.rejected", refined.rejected)
        return refined


class _MorePeriodsError(Exception):
    """A row that is kept in one period is still in another one that was not to be rewritten."""


class _Rewriting:
    """Some periods of one series on their way to silver."""

    def __init__(self, lake: Lake, declared: TableType, series: Series, periods: Sequence[str]) -> None:
        self.touching: frozenset[str] = frozenset()
        self._lake = lake
        self._declared = declared
        self._series = series
        self._periods = periods
        self._done: dict[str, Refinement] = {}
        self._gaps: dict[str, pl.DataFrame] = {}
        self._rows = 0

    def run(self) -> int | None:
        """Commit, and return the table's version; None if further periods (`touching`) have to be rewritten too."""
        shape = silver_shape(self._declared)
        scopes = [self._scope(period) for period in self._periods]
        try:
            return replace(self._lake, shape, scopes, lambda _: self._write(shape))
        except _MorePeriodsError:
            return None

    def note(self) -> None:
        """Write what was rejected and what is missing."""
        about = {
            "venue": self._series.venue,
            "market": self._series.market,
            "data_type": self._series.data_type,
            "symbol": self._series.symbol,
            "interval": self._series.interval,
        }
        rejected = {
            f"{self._declared.silver.name}/{self._name(period)}": done.rejected
            for period, done in self._done.items()
        }
        quarantine(self._lake, "silver", rejected, about)
        scopes = {period: self._gap_scope(period) for period in self._periods}
        files = [
            file
            for period, gaps in self._gaps.items()
            if (file := write_file(self._lake, GAPS, scopes[period], [self._with_series(gaps)]))
        ]
        replace(self._lake, GAPS, list(scopes.values()), lambda _: files)

    def refined(self, version: int) -> Refined:
        gaps = [
            Gap(*row) for found in self._gaps.values() for row in found["first", "last", "missing"].rows()
        ]
        return Refined(
            table=self._declared.silver.table,
            version=version,
            periods=tuple(self._periods),
            rows=self._rows,
            duplicates=sum(done.duplicates.height for done in self._done.values()),
            rejected=sum(done.rejected.height for done in self._done.values()),
            gaps=tuple(gaps),
        )

    def _write(self, shape: TableShape) -> list[DataFile]:
        bronze = open_table(self._lake, bronze_shape(self._declared))
        self._rows = 0
        files = []
        for period in self._periods:
            found = refine_rows(self._read(bronze, period), self._declared, self._series)
            if not found.touching <= set(self._periods):
                self.touching = found.touching
                raise _MorePeriodsError
            rows = found.rows.filter(pl.col(PERIOD) == period).drop(PERIOD)
            self._rows += rows.height
            self._gaps[period] = self._declared.missing(rows, self._series.interval)
            self._done[period] = Refinement(
                rows=rows.clear(),
                duplicates=found.duplicates.filter(pl.col(PERIOD) == period),
                rejected=found.rejected.filter(pl.col(PERIOD) == period).drop(PERIOD),
                touching=found.touching,
            )
            file = write_file(self._lake, shape, self._scope(period), rows.iter_slices(ROWS_AT_ONCE))
            files += [file] if file else []
        return files

    def _read(self, bronze: DeltaTable, period: str) -> pl.DataFrame:
        """The series' rows of bronze in a period and a little around it."""
        start, end = period_bounds(period)
        time = self._declared.bronze.time
        files = data_files(bronze)
        if not files.is_empty():
            constants = series_values(self._declared.bronze.series, self._series)
            own = [pl.col(f"min.{name}") == value for name, value in constants.items()]
            near = (pl.col(f"max.{time}") >= start - OVERLAP) & (pl.col(f"min.{time}") < end + OVERLAP)
            files = files.filter(*own, near)
        uris = [f"{self._lake.uri(bronze_shape(self._declared).path)}/{path}" for path in files["path"]]
        types = {
            column.name: column.polars
            for column in self._declared.bronze.columns
            if column.name not in self._declared.bronze.series
        }
        if not uris:
            return pl.DataFrame(schema=types)
        rows = pl.scan_parquet(uris, storage_options=self._lake.options or None).select(list(types))
        within = pl.col(time).is_between(start - OVERLAP, end + OVERLAP, closed="left")
        try:
            return rows.filter(within).collect()
        except STORE_ERRORS as error:
            raise storage_error(error, f"reading {self._declared.bronze.path}") from error

    def _constants(self) -> dict[str, str]:
        return series_values(self._declared.silver.series, self._series, self._declared.fixed)

    def _name(self, period: str) -> str:
        return "/".join([*self._constants().values(), period])

    def _scope(self, period: str) -> Scope:
        return Scope(self._name(period), self._constants())

    def _gap_scope(self, period: str) -> Scope:
        known = {"table_name": self._declared.silver.name, "period": period}
        named = {"venue": self._series.venue, "market": self._series.market, "symbol": self._series.symbol}
        return Scope(f"{self._declared.silver.name}/{self._name(period)}", {**known, **named})

    def _with_series(self, gaps: pl.DataFrame) -> pl.DataFrame:
        kind = self._declared.fixed.get("price_kind")
        return gaps.select(
            pl.lit(self._series.interval, pl.String()).alias("interval"),
            pl.lit(kind, pl.String()).alias("price_kind"),
            *GAP_SCHEMA.names(),
        )
