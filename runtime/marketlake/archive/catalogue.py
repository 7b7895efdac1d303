"""The catalogue: what discovery has seen of the venues' archives, as a Delta table in the lake."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from random import uniform

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from opentelemetry import trace

from marketlake.archive.model import ArchiveFile, Frequency, Selection
from marketlake.sync.errors import CommitConflictError
from marketlake.sync.stores import Lake, storage_error

CATALOGUE_PATH = "catalogue"
"""Below the lake's root."""
ATTEMPTS = 20
"""How often a change is tried while other discoveries win."""

_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("venue", "market", "data_type", "symbol", "interval")),
        ("frequency", pa.string()),
        ("start", pa.date32()),
        ("end", pa.date32()),
        ("key", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("last_modified", pa.timestamp("us", "UTC")),
        ("sidecar_key", pa.string()),
        ("seen_at", pa.timestamp("us", "UTC")),
    ]
)
_LISTED = ("size", "etag", "last_modified", "sidecar_key")
"""What a venue changes when it replaces a file in place."""

_tracer = trace.get_tracer("marketlake")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a discovery brought to the catalogue."""

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
            SyncError: the object store failed, or other discoveries never let go.
        """
        frame = _frame(files)
        if frame.is_empty():
            return Recorded(0, 0, 0)
        with _tracer.start_as_current_span("catalogue commit") as span:
            for attempt in range(ATTEMPTS):
                table = self._open()
                known = self._known(table, frame)
                merged = frame.join(known, on=["venue", "key"], how="left", suffix=" known")
                is_new = pl.col("seen_at known").is_null()
                differs = pl.any_horizontal(pl.col(c).ne_missing(pl.col(f"{c} known")) for c in _LISTED)
                new, changed = merged.filter(is_new), merged.filter(~is_new & differs)
                recorded = Recorded(new.height, changed.height, frame.height - new.height - changed.height)
                try:
                    self._merge(table, pl.concat([new, changed]).select(_SCHEMA.names))
                except CommitFailedError:
                    time.sleep(uniform(0, min(1.0, 0.02 * 2**attempt)))  # noqa: S311 - jitter, not a secret
                    continue
                except DeltaError as error:
                    raise storage_error(error, "committing to the catalogue") from error
                span.set_attributes({f"marketlake.{name}": count for name, count in asdict(recorded).items()})
                return recorded
        raise CommitConflictError(
            f"the catalogue: other discoveries changed it {ATTEMPTS} times in a row. Let one finish, then "
            "try again."
        )

    def query(self, selection: Selection) -> list[ArchiveFile]:
        """The selected files, ordered by series and time."""
        rows = self._selected(selection)
        return [_file(row) for row in rows.drop("seen_at").iter_rows(named=True)]

    def holdings(self, selection: Selection) -> list[Holding]:
        """One for each series that has selected files."""
        files = self.query(selection)
        return [_holding(list(group)) for _, group in groupby(files, key=_series)]

    def _open(self) -> DeltaTable:
        uri = self._lake.uri(CATALOGUE_PATH)
        try:
            return DeltaTable.create(uri, _SCHEMA, mode="ignore", storage_options=self._lake.options)
        except DeltaError as error:
            raise storage_error(error, "opening the catalogue") from error

    def _known(self, table: DeltaTable, frame: pl.DataFrame) -> pl.DataFrame:
        seen = [pl.col(name).is_in(frame[name].unique()) for name in ("venue", "market", "data_type")]
        return self._rows(table, seen).select("venue", "key", *_LISTED, "seen_at")

    def _merge(self, table: DeltaTable, rows: pl.DataFrame) -> None:
        if rows.is_empty():
            return
        (
            table.merge(
                rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(_SCHEMA),
                "known.venue = seen.venue and known.key = seen.key",
                source_alias="seen",
                target_alias="known",
            )
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute()
        )

    def _rows(self, table: DeltaTable, conditions: Iterable[pl.Expr]) -> pl.DataFrame:
        scan = pl.scan_delta(table, storage_options=self._lake.options or None)
        return scan.filter(*conditions).select(_SCHEMA.names).collect()

    def _selected(self, selection: Selection) -> pl.DataFrame:
        try:
            table = DeltaTable(self._lake.uri(CATALOGUE_PATH), storage_options=self._lake.options)
        except TableNotFoundError:
            return _frame([])
        except DeltaError as error:
            raise storage_error(error, "opening the catalogue") from error
        equal = {
            "venue": selection.venue,
            "market": selection.market,
            "data_type": selection.data_type,
            "interval": selection.interval,
            "frequency": selection.frequency and str(selection.frequency),
        }
        conditions = [pl.col(name) == value for name, value in equal.items() if value is not None]
        if selection.symbols:
            conditions.append(pl.col("symbol").is_in(selection.symbols))
        if selection.start:
            conditions.append(pl.col("end") >= selection.start)
        if selection.end:
            conditions.append(pl.col("start") <= selection.end)
        rows = self._rows(table, conditions)
        return rows.sort(
            "venue", "market", "data_type", "symbol", "interval", "start", "key", nulls_last=False
        )


def _frame(files: Iterable[ArchiveFile]) -> pl.DataFrame:
    now = datetime.now(UTC)
    rows = {(file.venue, file.key): {**asdict(file), "seen_at": now} for file in files}
    schema = pl.DataFrame(_SCHEMA.empty_table()).schema
    return pl.DataFrame(list(rows.values()), schema=schema)


def _file(row: dict[str, object]) -> ArchiveFile:
    return ArchiveFile(**{**row, "frequency": Frequency(str(row["frequency"]))})  # type: ignore[arg-type]  # by name


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
