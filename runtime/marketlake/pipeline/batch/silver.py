"""Bronze → silver: rows in order, each once, within the promises of their data type, with their gaps known.

What is rewritten as a whole is a period of a series (a day of trades, a month of bars, a year of fundings).
It is read from all the source files in bronze that have rows in it, so daily and monthly files are
reconciled, and the result depends on nothing else. A table of gaps is written along.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    Replacement,
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
from marketlake.pipeline.quality.quarantine import BadRows, quarantine
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

    Memory: the rows of a period, and the data files of all.
    """
    first = next(iter(wanted))
    declared = table_type(first.venue, first.market, first.data_type)
    rewritings = [_Rewriting(lake, declared, series, days) for series, days in wanted.items()]
    attributes: dict[str, str | int] = {
        "marketlake.table": declared.silver.path,
        "marketlake.series": len(rewritings),
    }
    with _tracer.start_as_current_span("silver commit", attributes=attributes) as span:

        def write(_: DeltaTable) -> Replacement:
            bronze = _BronzeFiles(lake, declared)
            files = [file for rewriting in rewritings for file in rewriting.write(bronze)]
            return Replacement([scope for rewriting in rewritings for scope in rewriting.scopes()], files)

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


class _BronzeFiles:
    """The data files of a bronze table at one version."""

    def __init__(self, lake: Lake, declared: TableType) -> None:
        self._lake = lake
        self._bronze = declared.bronze
        self._files = data_files(open_table(lake, bronze_shape(declared.bronze)))

    def read(self, series: Series, start: datetime, end: datetime) -> pl.DataFrame:
        """Return the rows of a series between two moments: all columns but those that are the series."""
        time = self._bronze.time
        labels = series_values(self._bronze.series, series)
        uris: list[str] = []
        if not self._files.is_empty():
            own = [
                (pl.col(f"min.{name}") <= value) & (pl.col(f"max.{name}") >= value)
                for name, value in labels.items()
            ]
            near = (pl.col(f"max.{time}") >= start) & (pl.col(f"min.{time}") < end)
            paths = self._files.filter(*own, near)["path"]
            uris = [f"{self._lake.uri(self._bronze.path)}/{path}" for path in paths]
        types = {
            column.name: column.polars
            for column in self._bronze.columns
            if column.name not in self._bronze.series
        }
        if not uris:
            return pl.DataFrame(schema=types)
        mine = [pl.col(name) == value for name, value in labels.items()]
        within = pl.col(time).is_between(start, end, closed="left")
        rows = pl.scan_parquet(uris, storage_options=self._lake.options or None)
        try:
            return rows.filter(*mine, within).select(list(types)).collect()
        except STORE_ERRORS as error:
            raise storage_error(error, f"reading {self._bronze.path}") from error


class _Rewriting:
    """Some periods of one series on their way to silver."""

    def __init__(self, lake: Lake, declared: TableType, series: Series, days: Iterable[date]) -> None:
        self._lake = lake
        self._declared = declared
        self._series = series
        self._periods = {period_name(day, declared.silver.period) for day in days}
        self._done: dict[str, Refinement] = {}
        self._gaps: dict[str, pl.DataFrame] = {}
        self._rows: dict[str, int] = {}

    def write(self, bronze: _BronzeFiles) -> list[DataFile]:
        """Write the periods' rows; further periods follow that have a row which is kept in another one now."""
        files: list[DataFile] = []
        written: set[str] = set()
        while left := sorted(self._periods - written):
            period = left[0]
            file = self._write_period(bronze, period)
            files += [file] if file else []
            written.add(period)
            self._periods |= self._done[period].touching
        return files

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
        for period, done in self._done.items():
            yield f"{self._declared.silver.name}/{self._name(period)}", BadRows(done.rejected, about)

    def gaps(self) -> Iterator[tuple[Scope, pl.DataFrame]]:
        """What is missing, by the scope in the table of gaps."""
        for period, gaps in self._gaps.items():
            yield self._gap_scope(period), self._with_series(gaps)

    def _write_period(self, bronze: _BronzeFiles, period: str) -> DataFile | None:
        start, end = period_bounds(period)
        read = bronze.read(self._series, start - OVERLAP, end + OVERLAP)
        found = refine_rows(read, self._declared, self._series)
        rows = found.rows.filter(pl.col(PERIOD) == period).drop(PERIOD)
        self._rows[period] = rows.height
        self._gaps[period] = self._declared.missing(rows, self._series.interval)
        self._done[period] = Refinement(
            rows=rows.clear(),
            duplicates=found.duplicates.filter(pl.col(PERIOD) == period),
            rejected=found.rejected.filter(pl.col(PERIOD) == period).drop(PERIOD),
            touching=found.touching,
        )
        scope = Scope(self._name(period), self._labels())
        return write_file(self._lake, silver_shape(self._declared), scope, rows.iter_slices(ROWS_AT_ONCE))

    def refined(self, version: int) -> Refined:
        """What the periods contain."""
        gaps = [
            Gap(*row) for found in self._gaps.values() for row in found["first", "last", "missing"].rows()
        ]
        return Refined(
            table=self._declared.silver.table,
            version=version,
            periods=tuple(sorted(self._periods)),
            rows=sum(self._rows.values()),
            duplicates=sum(done.duplicates.height for done in self._done.values()),
            rejected=sum(done.rejected.height for done in self._done.values()),
            gaps=tuple(gaps),
        )

    def _labels(self) -> dict[str, str]:
        return series_values(self._declared.silver.series, self._series, self._declared.fixed)

    def _name(self, period: str) -> str:
        return "/".join([*self._labels().values(), period])

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
