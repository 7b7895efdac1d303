"""Small data files of bronze → few large ones, in which the rows of a series lie together.

Daily life brings some data files a day, each with one day of many series, and a query of one series' month would open
all of them. Of each market and month the small ones are merged: some while the month goes on, all that are left
afterwards. What was written sorted by series over many months (a backfill) stays as it is.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from uuid import uuid4

import polars as pl
from opentelemetry import trace

from marketlake.infrastructure.storage.delta import DataFile, TableShape, scan_files, write_blocks
from marketlake.infrastructure.storage.parquet import Block
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error
from marketlake.pipeline.contracts.contract import Contract
from marketlake.pipeline.ingest.bronze import bronze_shape
from marketlake.pipeline.ingest.csv_parser import ROW_NUMBER
from marketlake.portions import portions

SMALL = 64 * 1024 * 1024
"""Bytes below which a data file is merged with others."""
ROWS_OF_FILE = 5_000_000
"""Rows of a merged data file, about 128 MiB."""
DUE_IN_MONTH, DUE_AFTERWARDS = 32, 4
"""How many small data files a market's month has when they are merged."""
ROWS_AT_ONCE = 1_000_000
"""Rows that are sorted in memory."""

SeriesValues = tuple[str, ...]
"""Values of the columns that a contract calls the series."""

_tracer = trace.get_tracer("marketlake")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A data file that is visible."""

    id: int
    file: DataFile


@dataclass(frozen=True, slots=True)
class Merge:
    """Data files of a market's month that are to be merged."""

    market: str
    month: str
    """``2026-05``."""
    files: tuple[Candidate, ...]

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(candidate.file.size for candidate in self.files)


@dataclass(frozen=True, slots=True)
class Merged:
    """A data file that holds the rows of some series."""

    file: DataFile
    series: frozenset[SeriesValues]


def due(contract: Contract, files: Iterable[Candidate], today: date) -> list[Merge]:
    """Return which data files of a table are to be merged now."""
    placed = sorted(
        ((*place, candidate) for candidate in files if (place := _place(contract, candidate))),
        key=lambda item: (item[0], item[1], item[2].id),
    )
    merges: list[Merge] = []
    for (market, month), group in groupby(placed, key=lambda item: (item[0], item[1])):
        small = tuple(candidate for *_, candidate in group)
        enough = DUE_IN_MONTH if month >= today.strftime("%Y-%m") else DUE_AFTERWARDS
        if len(small) >= enough:
            merges.append(Merge(market, month, small))
    return merges


def merge(lake: Lake, contract: Contract, wanted: Merge) -> list[Merged]:
    """Write the rows of some data files into new ones, which are not committed.

    Memory: some :data:`ROWS_AT_ONCE` rows.

    Raises:
        StorageError, StorageFullError: the object store failed.
    """
    shape = bronze_shape(contract)
    attributes: dict[str, str | int] = {
        "marketlake.table": shape.path,
        "marketlake.month": wanted.month,
        "marketlake.files": len(wanted.files),
    }
    with _tracer.start_as_current_span("compact", attributes=attributes):
        try:
            source = _Source(lake, contract, shape, wanted)
            return [_written(lake, shape, source, wanted.market, some) for some in source.files()]
        except STORE_ERRORS as error:
            raise storage_error(error, f"compacting {shape.path}") from error


def _place(contract: Contract, candidate: Candidate) -> tuple[str, str] | None:
    """Market and month of a small data file; None for one that is large, or has rows of several months."""
    if candidate.file.size >= SMALL:
        return None
    statistics = json.loads(candidate.file.statistics)
    first, last = (str(statistics[name].get(contract.time, ""))[:7] for name in ("minValues", "maxValues"))
    if not first or first != last:
        return None
    return candidate.file.key.partition("/")[0], first


class _Source:
    """The rows of some data files, by series."""

    def __init__(self, lake: Lake, contract: Contract, shape: TableShape, wanted: Merge) -> None:
        self._rows = scan_files(lake, shape, [candidate.file.key for candidate in wanted.files])
        self._labels = shape.labels
        self._series = contract.series
        counted = self._rows.group_by(self._series).agg(pl.len()).collect(engine="streaming")
        self._counts: dict[SeriesValues, int] = {
            tuple(row[:-1]): row[-1] for row in counted.sort(self._series).iter_rows()
        }

    def files(self) -> Iterator[list[list[SeriesValues]]]:
        """Yield the series of each new data file, in portions that are sorted in memory."""
        read = portions(self._counts, self._counts.__getitem__, ROWS_AT_ONCE)
        return portions(read, lambda some: sum(self._counts[series] for series in some), ROWS_OF_FILE)

    def blocks(self, parts: Iterable[Sequence[SeriesValues]]) -> Iterator[Block]:
        """Yield the rows of some series, each source file's together."""
        for part in parts:
            names = pl.DataFrame(list(part), schema=list(self._series), orient="row")
            # By these the reader passes over row groups; the join leaves what is asked for.
            mine = [
                pl.col(name).is_between(pl.lit(names[name].min()), pl.lit(names[name].max()))
                for name in self._series
            ]
            rows = (
                self._rows.filter(*mine)
                .collect()
                .join(names, on=list(self._series), how="semi")
                .sort(*self._series, "source_key", ROW_NUMBER)
            )
            for some in rows.iter_slices(ROWS_AT_ONCE // 4):
                yield Block.by_labels(some, self._labels)


def _written(
    lake: Lake, shape: TableShape, source: _Source, market: str, parts: Sequence[Sequence[SeriesValues]]
) -> Merged:
    key = f"{market}/{uuid4()}.parquet"
    file = write_blocks(lake, shape, key, source.blocks(parts))
    if file is None:
        raise AssertionError("each series has rows")
    return Merged(file, frozenset(series for part in parts for series in part))
