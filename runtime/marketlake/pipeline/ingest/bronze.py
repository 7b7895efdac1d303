"""Landing → bronze: the rows of some archive files, typed, in the order of the files, in one data file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import obstore
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import BaseError
from obstore.store import ObjectStore as Bucket
from opentelemetry import trace

from marketlake.domain.archive import ArchiveFile
from marketlake.errors import MarketlakeError
from marketlake.infrastructure.storage.delta import DataFile, TableShape, write_blocks
from marketlake.infrastructure.storage.parquet import Block, Run
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error
from marketlake.pipeline.contracts.contract import Contract
from marketlake.pipeline.contracts.table_type import TableType, UnsupportedDatasetError
from marketlake.pipeline.contracts.tables import contracts, file_columns, table_type
from marketlake.pipeline.ingest.csv_parser import (
    BAD_ROWS,
    BATCH,
    ROW_NUMBER,
    CsvParser,
    sniff_header,
    text_batches,
)
from marketlake.pipeline.ingest.zip_member import HeldZip, InflationLimits, StoredZip, open_member
from marketlake.pipeline.quality.quarantine import BadRows, quarantine

QUARANTINED_AT_ONCE = 100_000
"""Bad rows that are kept of one file; a file with more is as good as none, and their number is still
counted."""
TOGETHER = 4 * 1024 * 1024
"""Inflated bytes of a file up to which it is parsed with its neighbours; a larger one is parsed by itself."""

_tracer = trace.get_tracer("marketlake")


@dataclass(frozen=True, slots=True)
class LandedFile:
    """An archive file that lies in the landing bucket."""

    file: ArchiveFile
    key: str
    """In the landing bucket."""
    data: bytes | None
    """Its bytes, if they are few; None: they are read from landing."""
    version_id: str | None = None
    """Of the object in landing; None if the bucket is not versioned."""
    etag: str | None = None
    """Of the object, without quotes: it must still be that one if there is no version."""
    was_quarantined: bool = False
    """Whether rows of it lie in quarantine since it was ingested before."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """What bronze holds of a file."""

    rows: int
    quarantined: int
    first_day: date | None
    """UTC day of the earliest row; None without rows."""
    last_day: date | None
    header: bool
    """Whether the file has one."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of ingesting some files."""

    data_file: DataFile | None
    """Their rows, not committed yet; None without any."""
    files: Mapping[str, FileRows]
    """By key: those that were taken over."""
    failures: Mapping[str, Exception]
    """By key: those that cannot be taken over, and why. Nothing of them is in the data file."""


def bronze_shape(contract: Contract) -> TableShape:
    """Return the Delta table of a bronze contract: rows in the order of their source files, of a series together."""
    return contract.shape((*contract.series, "frequency", "source_key"), committed=True)


def shape_of(table: str) -> TableShape:
    """Return the bronze table of a name, e.g. ``bronze/binance_klines``.

    Raises:
        UnsupportedDatasetError: no contract describes it; another release may have staged for it.
    """
    for contract in contracts().bronze.values():
        if contract.path == table:
            return bronze_shape(contract)
    raise UnsupportedDatasetError(f"no contract describes the table {table} in this release")


class Bronze:
    """Writes data files of the bronze tables; they are committed by whoever stages them.

    Args:
        lake: where bronze lies.
        landing: where the archive files lie.
        limits: what a file may inflate to.
    """

    def __init__(self, lake: Lake, landing: Bucket, limits: InflationLimits) -> None:
        self._lake = lake
        self._landing = landing
        self._limits = limits

    def table(self, file: ArchiveFile) -> str:
        """Return the table that holds a file's rows, e.g. ``bronze/binance_klines``.

        Raises:
            UnsupportedDatasetError: no contract is mapped to its dataset.
        """
        return _type_of(file).bronze.path

    def ingest(self, landed: Sequence[LandedFile], name: str) -> Ingested:
        """Write the rows of some files of one dataset into a data file.

        Uses one processor for a second per about 170 MB of CSV, and memory for a few batches, whatever a file's size,
        if it is the only one.

        Args:
            landed: the files, ordered by series and time.
            name: of the data file, without suffix; new for each call.

        Raises:
            UnsupportedDatasetError: no contract is mapped to the dataset.
            StorageError, StorageFullError: the object store failed.
        """
        first = landed[0].file
        shape = bronze_shape(_type_of(first).bronze)
        attributes: dict[str, str | int] = {
            "marketlake.venue": first.venue,
            "marketlake.table": shape.path,
            "marketlake.files": len(landed),
        }
        with _tracer.start_as_current_span("ingest", attributes=attributes) as span:
            reading = _Reading(landed, self._landing, self._limits)
            try:
                key = f"{first.market}/{name}.parquet"
                written = write_blocks(self._lake, shape, key, reading.blocks())
            except (BaseError, FileNotFoundError) as error:
                raise storage_error(error, "reading files from landing") from error
            except _SoleFileError as error:
                written, reading.failures[first.key] = None, error.reason
            reading.quarantine(self._lake)
            span.set_attribute("marketlake.rows", written.rows if written else 0)
            return Ingested(written, reading.files, reading.failures)

    def without(self, table: str, former: DataFile, keys: set[str], name: str) -> DataFile | None:
        """Write a data file's rows anew but those of some source files; None if no other is left.

        Memory: the data file as it is stored, and one row group.

        Raises:
            StorageError, StorageFullError: the object store failed.
        """
        shape = shape_of(table)
        key = f"{former.key.rpartition('/')[0]}/{name}.parquet"
        try:
            return write_blocks(self._lake, shape, key, _others(self._lake, shape, former, keys))
        except STORE_ERRORS as error:
            raise storage_error(error, f"reading {table}") from error


class _SoleFileError(Exception):
    """The only file of a group cannot be taken over; part of it may have been written."""

    def __init__(self, reason: MarketlakeError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Reading:
    """Files' rows on their way, and what was seen of them."""

    def __init__(self, landed: Sequence[LandedFile], landing: Bucket, limits: InflationLimits) -> None:
        self._landed = landed
        self._landing = landing
        self._limits = limits
        self._declared = _type_of(landed[0].file)
        self._time = self._declared.bronze.time
        self._columns = file_columns(landed[0].file)
        self.files: dict[str, FileRows] = {}
        self.failures: dict[str, MarketlakeError] = {}
        self._bad: dict[str, pl.DataFrame] = {}

    def blocks(self) -> Iterator[Block]:
        """Yield the rows of all files that can be taken over."""
        if len(self._landed) == 1:
            try:
                yield from self._streamed(self._landed[0])
            except MarketlakeError as error:
                if error.transient:
                    raise
                raise _SoleFileError(error) from error
            return
        held: list[tuple[ArchiveFile, bytes]] = []
        size = 0
        for each in self._landed:
            try:
                member = open_member(self._source(each), each.file.key, self._limits)
                if member.size > TOGETHER:
                    yield from self._together(held)
                    held, size = [], 0
                    yield from list(self._parsed(each.file, text_batches(member.pieces(), each.file.key)))
                    continue
                held.append((each.file, b"".join(member.pieces())))
            except MarketlakeError as error:
                self._failed(each.file, error)
                continue
            size += member.size
            if size >= BATCH:
                yield from self._together(held)
                held, size = [], 0
        yield from self._together(held)

    def quarantine(self, lake: Lake) -> None:
        """Keep the rows that could not be typed."""
        bad: dict[str, BadRows] = {}
        for each in self._landed:
            file, found = each.file, self._bad.get(each.file.key)
            if file.key in self.failures or (found is None and not each.was_quarantined):
                continue
            about = {
                "venue": file.venue,
                "market": file.market,
                "data_type": file.data_type,
                "symbol": file.symbol,
                "interval": file.interval,
            }
            rows = pl.DataFrame(schema=BAD_ROWS) if found is None else found
            rows = rows.select(pl.lit(file.key).alias("source_key"), *rows.columns)
            bad[f"{file.venue}/{file.key}"] = BadRows(rows, about)
        if bad:
            quarantine(lake, "bronze", bad)

    def _source(self, each: LandedFile) -> HeldZip | StoredZip:
        if each.data is not None:
            return HeldZip(each.data)
        return StoredZip(self._landing, each.key, version_id=each.version_id, etag=each.etag)

    def _streamed(self, each: LandedFile) -> Iterator[Block]:
        member = open_member(self._source(each), each.file.key, self._limits)
        return self._parsed(each.file, text_batches(member.pieces(), each.file.key))

    def _together(self, held: Sequence[tuple[ArchiveFile, bytes]]) -> Iterator[Block]:
        """Small files at once; one by one if there is anything special about any of them."""
        if not held:
            return
        parser = CsvParser(self._declared, self._columns, held[0][0].key)
        try:
            whole = parser.parse_whole([text for _, text in held])
        except MarketlakeError:
            whole = None
        if whole is None:
            for file, text in held:
                try:
                    yield from list(self._parsed(file, iter([text])))
                except MarketlakeError as error:
                    self._failed(file, error)
            return
        rows, counts = whole
        time = pl.col(self._time)
        spans = rows.group_by((pl.col(ROW_NUMBER) == 1).cum_sum(), maintain_order=True).agg(
            time.min().alias("first"), time.max().alias("last")
        )
        for (file, text), count, (_, first, last) in zip(held, counts, spans.iter_rows(), strict=True):
            self.files[file.key] = FileRows(count, 0, first.date(), last.date(), sniff_header(text[:8]))
        runs = tuple(Run(count, self._labels(file)) for (file, _), count in zip(held, counts, strict=True))
        yield Block(rows, runs)

    def _parsed(self, file: ArchiveFile, texts: Iterator[bytes]) -> Iterator[Block]:
        parser = CsvParser(self._declared, self._columns, file.key)
        labels = self._labels(file)
        rows = quarantined = 0
        first: datetime | None = None
        last: datetime | None = None
        bad: list[pl.DataFrame] = []
        for text in texts:
            batch = parser.parse(text)
            kept = max(0, QUARANTINED_AT_ONCE - quarantined)
            if batch.bad.height and kept:
                bad.append(batch.bad.head(kept))
            quarantined += batch.bad.height
            rows += batch.rows.height
            smallest, largest = batch.rows[self._time].min(), batch.rows[self._time].max()
            if isinstance(smallest, datetime) and isinstance(largest, datetime):
                first = smallest if first is None else min(first, smallest)
                last = largest if last is None else max(last, largest)
            yield Block.of(batch.rows, labels)
        self.files[file.key] = FileRows(
            rows,
            quarantined,
            first.date() if first else None,
            last.date() if last else None,
            bool(parser.header),
        )
        if bad:
            self._bad[file.key] = pl.concat(bad)

    def _labels(self, file: ArchiveFile) -> dict[str, str]:
        return {
            "venue": file.venue,
            "market": file.market,
            "symbol": file.symbol,
            "interval": file.interval or "",
            "frequency": str(file.frequency),
            "source_key": file.key,
        }

    def _failed(self, file: ArchiveFile, error: MarketlakeError) -> None:
        if error.transient:
            raise error
        self.files.pop(file.key, None)
        self.failures[file.key] = error


def _others(lake: Lake, shape: TableShape, former: DataFile, keys: set[str]) -> Iterator[Block]:
    held = obstore.get(lake.bucket, f"{shape.path}/{former.key}").bytes()
    with pq.ParquetFile(pa.BufferReader(held)) as parquet:
        for number in range(parquet.num_row_groups):
            rows = shape.completed(pl.DataFrame(parquet.read_row_group(number))).with_columns(
                pl.col(shape.labels).cast(pl.String())
            )
            rows = rows.filter(~pl.col("source_key").is_in(list(keys)))
            yield Block.by_labels(rows, shape.labels)


def _type_of(file: ArchiveFile) -> TableType:
    return table_type(file.venue, file.market, file.data_type)
