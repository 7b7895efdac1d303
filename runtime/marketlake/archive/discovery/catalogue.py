"""The catalogue: every archive file that discovery has listed, as a Delta table in the lake."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from opentelemetry import trace

from marketlake.domain.archive import ArchiveFile, Frequency, Selection
from marketlake.domain.venue import load_venue, matching_datasets
from marketlake.infrastructure.storage.delta import (
    DataFile,
    Replacement,
    Scope,
    open_table,
    replace,
    scan_files,
    scope_files,
    write_file,
)
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error
from marketlake.pipeline.contracts.catalogue import CATALOGUE

_LISTED = ("size", "etag", "last_modified", "sidecar_key")
"""What a venue changes when it replaces a file in place."""

_tracer = trace.get_tracer("marketlake")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a discovery changed in the catalogue."""

    new: int
    changed: int
    """Known files that the venue has replaced, or whose checksum file appeared."""
    unchanged: int


@dataclass(frozen=True, slots=True)
class DayRange:
    """UTC days, both included."""

    first: date
    last: date

    @property
    def days(self) -> int:
        """How many."""
        return (self.last - self.first).days + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What the catalogue knows of one series."""

    venue: str
    market: str
    data_type: str
    symbol: str
    interval: str | None
    files: int
    size: int
    """Bytes of all files."""
    first: date
    last: date
    gaps: tuple[DayRange, ...]
    """Days between `first` and `last` that no file, daily or monthly, covers."""
    keys: tuple[str, ...]
    """Of all files, to look up whether they were collected."""

    @property
    def missing_days(self) -> int:
        """Days in the gaps."""
        return sum(gap.days for gap in self.gaps)


class Catalogue:
    """The table of all archive files that were ever listed, one row for each (venue, key)."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def record(self, files: Iterable[ArchiveFile]) -> Recorded:
        """Add what is new and update what has changed, in one commit; none if all is known.

        Raises:
            StorageError: the object store failed.
            CommitConflictError: other discoveries kept changing the same series.
        """
        seen = _frame(files)
        if seen.is_empty():
            return Recorded(0, 0, 0)
        with _tracer.start_as_current_span("catalogue commit") as span:
            news = _news(seen, self._rows(open_table(self._lake, CATALOGUE), _scopes(seen)))
            touched = seen.join(news, on=CATALOGUE.labels, how="semi")

            def write(table: DeltaTable) -> Replacement:
                nonlocal news
                known = self._rows(table, _scopes(touched))
                news = _news(touched, known)
                rows = pl.concat(
                    [known.join(news, on=["venue", "key"], how="anti"), news.select(known.columns)]
                )
                return Replacement(list(_scopes(touched)), self._write(rows))

            if not news.is_empty():
                replace(self._lake, CATALOGUE, write)
            changed = news.filter("known").height
            recorded = Recorded(news.height - changed, changed, seen.height - news.height)
            span.set_attributes({f"marketlake.{name}": count for name, count in asdict(recorded).items()})
            return recorded

    def query(self, selection: Selection) -> list[ArchiveFile]:
        """Return the selected files, ordered by series and time."""
        rows = self._selected(selection)
        return [_file(row) for row in rows.drop("seen_at").iter_rows(named=True)]

    def holdings(self, selection: Selection) -> list[Holding]:
        """Return one holding for each series that has selected files."""
        files = self.query(selection)
        return [_holding(list(group)) for _, group in groupby(files, key=_series)]

    def _rows(self, table: DeltaTable, scopes: Iterable[Scope]) -> pl.DataFrame:
        paths = scope_files(table, scopes)["path"]
        if paths.is_empty():
            return _frame([])
        try:
            return scan_files(self._lake, CATALOGUE, paths).collect()
        except STORE_ERRORS as error:
            raise storage_error(error, "reading the catalogue") from error

    def _write(self, rows: pl.DataFrame) -> list[DataFile]:
        parts = {scope: part.select(CATALOGUE.columns.names) for scope, part in _scopes(rows).items()}
        files = (
            write_file(self._lake, CATALOGUE, scope, [part.sort("start", "key")])
            for scope, part in parts.items()
        )
        return [file for file in files if file]

    def _selected(self, selection: Selection) -> pl.DataFrame:
        try:
            table = DeltaTable(self._lake.uri(CATALOGUE.path), storage_options=self._lake.options)
        except TableNotFoundError:
            return _frame([])
        except STORE_ERRORS as error:
            raise storage_error(error, "opening the catalogue") from error
        equal = {
            "venue": selection.venue,
            "market": selection.market,
            "interval": selection.interval,
            "frequency": selection.frequency and str(selection.frequency),
        }
        conditions = [pl.col(name) == value for name, value in equal.items() if value is not None]
        if selection.data_type:
            meant = matching_datasets(load_venue(selection.venue), selection)
            conditions.append(pl.col("data_type").is_in({dataset.data_type for dataset in meant}))
        if selection.symbols:
            conditions.append(pl.col("symbol").is_in(selection.symbols))
        if selection.start:
            conditions.append(pl.col("end") >= selection.start)
        if selection.end:
            conditions.append(pl.col("start") <= selection.end)
        try:
            scan = pl.scan_delta(table, storage_options=self._lake.options or None)
            rows = scan.filter(*conditions).collect()
        except STORE_ERRORS as error:
            raise storage_error(error, "reading the catalogue") from error
        return rows.sort(
            "venue", "market", "data_type", "symbol", "interval", "start", "key", nulls_last=False
        )


def _frame(files: Iterable[ArchiveFile]) -> pl.DataFrame:
    now = datetime.now(UTC)
    rows = {(file.venue, file.key): {**asdict(file), "seen_at": now} for file in files}
    schema = pl.DataFrame(CATALOGUE.schema.empty_table()).schema
    return pl.DataFrame(list(rows.values()), schema=schema)


def _file(row: dict[str, object]) -> ArchiveFile:
    return ArchiveFile(**{**row, "frequency": Frequency(str(row["frequency"]))})  # type: ignore[arg-type]  # by name


def _scopes(rows: pl.DataFrame) -> dict[Scope, pl.DataFrame]:
    """Rows by the part of the table that they lie in: one for each symbol of a data type."""
    scopes = {}
    for part in rows.partition_by(CATALOGUE.labels):
        constants = part.select(CATALOGUE.labels).row(0, named=True)
        scopes[Scope("/".join([*constants.values(), "files"]), constants)] = part
    return scopes


def _news(seen: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Rows that are not known as they were seen; `known` tells whether they are known at all."""
    there = known.select("venue", "key", *_LISTED, known=pl.lit(True))
    joined = seen.join(there, on=["venue", "key"], how="left", suffix=" there")
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name} there")) for name in _LISTED)
    news = joined.with_columns(pl.col("known").fill_null(False)).filter(~pl.col("known") | differs)
    return news.select(*seen.columns, "known")


def _series(file: ArchiveFile) -> tuple[str, ...]:
    return file.venue, file.market, file.data_type, file.symbol, file.interval or ""


def _holding(files: list[ArchiveFile]) -> Holding:
    gaps: list[DayRange] = []
    covered = files[0].start - timedelta(days=1)
    for file in sorted(files, key=lambda file: file.start):
        if file.start > covered + timedelta(days=1):
            gaps.append(DayRange(covered + timedelta(days=1), file.start - timedelta(days=1)))
        covered = max(covered, file.end)
    one = files[0]
    return Holding(
        venue=one.venue,
        market=one.market,
        data_type=one.data_type,
        symbol=one.symbol,
        interval=one.interval,
        files=len(files),
        size=sum(file.size for file in files),
        first=min(file.start for file in files),
        last=covered,
        gaps=tuple(gaps),
        keys=tuple(file.key for file in files),
    )
