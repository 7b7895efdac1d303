"""Landing → bronze: the rows of one archive file, typed, in the order of the file."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl
from obstore.exceptions import BaseError
from obstore.store import ObjectStore as Bucket
from opentelemetry import trace

from marketlake.domain.archive import ArchiveFile
from marketlake.infrastructure.storage.delta import Scope, TableShape, replace, write_file
from marketlake.infrastructure.storage.stores import Lake, landing_store, storage_error
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.contracts.tables import file_columns, table_type
from marketlake.pipeline.ingest.csv_parser import ROW_NUMBER, CsvParser, text_batches
from marketlake.pipeline.ingest.zip_member import InflationLimits, open_member
from marketlake.pipeline.quality.quarantine import quarantine
from marketlake.settings import ObjectStore
from marketlake.sync.copy import CopiedObject

QUARANTINED_AT_ONCE = 100_000
"""Bad rows that are kept of one file; a file with more is as good as none, and their number is still
counted."""

_tracer = trace.get_tracer("marketlake")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """The result of ingesting a file."""

    rows: int
    """In bronze."""
    quarantined: int
    """In quarantine."""
    version: int
    """Of the bronze table, with these rows."""
    first_day: date | None
    """UTC day of the earliest row; None without rows."""
    last_day: date | None
    header: bool
    """Whether the file has one."""
    uncompressed_size: int
    """Bytes of CSV."""


def bronze_shape(declared: TableType) -> TableShape:
    """Return the bronze table of a data type: one data file per source file, rows in the source's order."""
    return declared.bronze.shape(constants=(*declared.bronze.series, "frequency", "source_key"))


def ingest(
    file: ArchiveFile, copied: CopiedObject, store: ObjectStore, *, limits: InflationLimits
) -> Ingested:
    """Replace the rows of this file in bronze by those of its copy in landing.

    Safe to repeat, and safe to run at the same time as itself; uses one processor for a second per about 170
    MB of CSV, and memory for a few batches, whatever the file's size.

    Raises:
        UnsupportedDatasetError: no contract is mapped to the data type.
        MarketlakeError: the file cannot be taken over; the class says why. Bronze is as it was.
    """
    return ingest_object(file, landing_store(store), copied.key, Lake.of(store), limits)


def ingest_object(
    file: ArchiveFile, landing: Bucket, key: str, lake: Lake, limits: InflationLimits
) -> Ingested:
    """:func:`ingest`, told where things lie."""
    declared = table_type(file.venue, file.market, file.data_type)
    shape = bronze_shape(declared)
    attributes = {"marketlake.venue": file.venue, "marketlake.key": file.key, "marketlake.table": shape.path}
    with _tracer.start_as_current_span("bronze commit", attributes=attributes) as span:
        constants = {
            "venue": file.venue,
            "market": file.market,
            "symbol": file.symbol,
            "interval": file.interval or "",
            "frequency": str(file.frequency),
            "source_key": file.key,
        }
        scope = Scope(f"{file.venue}/{file.key}", constants)
        try:
            member = open_member(landing, key, limits)
            reading = _Reading(CsvParser(declared, file_columns(file), file.key), declared)
            written = write_file(lake, shape, scope, reading.frames(member.pieces()))
        except (BaseError, FileNotFoundError) as error:
            raise storage_error(error, f"reading {key} from landing") from error
        about = {
            "venue": file.venue,
            "market": file.market,
            "data_type": file.data_type,
            "symbol": file.symbol,
            "interval": file.interval,
        }
        quarantine(lake, "bronze", {f"{file.venue}/{file.key}": reading.bad(file.key)}, about)
        version = replace(lake, shape, [scope], lambda _: [written] if written else [])
        span.set_attribute("marketlake.rows", reading.rows)
        span.set_attribute("marketlake.quarantined", reading.quarantined)
        return Ingested(
            rows=reading.rows,
            quarantined=reading.quarantined,
            version=version,
            first_day=reading.first.date() if reading.first else None,
            last_day=reading.last.date() if reading.last else None,
            header=bool(reading.parser.header),
            uncompressed_size=member.size,
        )


class _Reading:
    """A file's rows on their way, and what was seen of them."""

    def __init__(self, parser: CsvParser, declared: TableType) -> None:
        self.parser = parser
        self.rows = 0
        self.quarantined = 0
        self.first: datetime | None = None
        self.last: datetime | None = None
        self._time = declared.bronze.time
        self._bad: list[pl.DataFrame] = []

    def frames(self, pieces: Iterator[bytes]) -> Iterator[pl.DataFrame]:
        for text in text_batches(pieces, self.parser.name):
            batch = self.parser.parse(text)
            kept = max(0, QUARANTINED_AT_ONCE - self.quarantined)
            if batch.bad.height and kept:
                self._bad.append(batch.bad.head(kept))
            self.quarantined += batch.bad.height
            self.rows += batch.rows.height
            self._see(batch.rows[self._time])
            yield batch.rows

    def bad(self, source_key: str) -> pl.DataFrame:
        schema = {ROW_NUMBER: pl.Int64(), "raw": pl.String(), "reason": pl.String()}
        rows = pl.concat([pl.DataFrame(schema=schema), *self._bad])
        return rows.with_columns(source_key=pl.lit(source_key))

    def _see(self, times: pl.Series) -> None:
        first, last = times.min(), times.max()
        if isinstance(first, datetime) and isinstance(last, datetime):
            self.first = min(self.first or first, first)
            self.last = max(self.last or last, last)
