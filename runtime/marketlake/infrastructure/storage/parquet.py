"""Encode typed rows as one Parquet file, streamed, with the statistics that a Delta table keeps of it.

PyArrow writes, not Polars, because it takes an encoding for each column. Whole numbers and times are nearly
sequences: DELTA_BINARY_PACKED leaves little of them, and is faster than compressing them plain. Doubles are
put byte by byte (BYTE_STREAM_SPLIT), which compresses as well as a dictionary and costs no look-ups.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import accumulate
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

COMPRESSION = "zstd"
LEVEL = 1
VALUES_AT_ONCE = 65_536
"""How many values of a column the writer takes at once."""
_ENCODINGS = {"count": "DELTA_BINARY_PACKED", "measure": "BYTE_STREAM_SPLIT"}
"""By kind of column; all else is written plain, and texts by dictionary."""
_MEASURED = ("count", "measure", "date")
"""Kinds of columns whose least and greatest value are noted."""


@dataclass(frozen=True, slots=True)
class FileStatistics:
    """What a Delta log says about a data file."""

    rows: int
    minimum: dict[str, Any]
    maximum: dict[str, Any]
    nulls: dict[str, int]

    def to_json(self) -> str:
        """Return the JSON of Delta's protocol: times as ISO 8601 text with microseconds."""
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {name: _plain(value) for name, value in self.minimum.items()},
                "maxValues": {name: _plain(value) for name, value in self.maximum.items()},
                "nullCount": self.nulls,
            }
        )


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive rows that have the same labels."""

    rows: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that become one row group."""

    rows: pl.DataFrame
    runs: tuple[Run, ...]
    """Their labels, in order; together they have as many rows."""

    @classmethod
    def of(cls, rows: pl.DataFrame, labels: Mapping[str, str]) -> "Block":
        """Return rows that have the same labels, all of them."""
        return cls(rows, (Run(rows.height, labels),))

    @classmethod
    def by_labels(cls, rows: pl.DataFrame, labels: Sequence[str]) -> "Block":
        """Return rows that have their labels in columns, as text."""
        runs = rows.select(pl.struct(labels).rle().struct.unnest())
        told = tuple(Run(run["len"], run["value"]) for run in runs.iter_rows(named=True))
        return cls(rows.drop(labels), told)


class ParquetStream:
    """Encodes blocks of rows to a Parquet file."""

    def __init__(self, columns: pa.Schema, labels: Sequence[str]) -> None:
        """Prepare to encode.

        Args:
            columns: what the blocks' rows hold; those that are not nullable cost less.
            labels: further text columns, put first, whose values stand in the blocks' runs.
        """
        self._columns = columns
        self._labels = tuple(labels)
        self._metadata: list[pq.FileMetaData] = []
        self._nulls = dict.fromkeys([*labels, *columns.names], 0)
        self._seen: dict[str, set[str]] = {name: set() for name in labels}

    def encode(self, blocks: Iterable[Block]) -> Iterator[bytes]:
        """Yield the file's bytes, chunk by chunk. Without any rows it is still a valid file."""
        spool = _Spool()
        text = pa.dictionary(pa.int32(), pa.string())
        labels = [pa.field(name, text, nullable=False) for name in self._labels]
        schema = pa.schema([*labels, *self._columns])
        encodings = {field.name: _ENCODINGS.get(_kind(field.type)) for field in schema}
        measured = [field.name for field in self._columns if _kind(field.type) in _MEASURED]
        writer = pq.ParquetWriter(
            spool,
            schema,
            compression=COMPRESSION,
            compression_level=LEVEL,
            use_dictionary=[field.name for field in schema if _kind(field.type) == "text"],
            column_encoding={name: encoding for name, encoding in encodings.items() if encoding},
            write_statistics=[*self._labels, *measured],  # readers pass over row groups by them
            write_batch_size=VALUES_AT_ONCE,
            store_schema=False,
            metadata_collector=self._metadata,
        )
        with writer:
            for block in blocks:
                if block.rows.height:
                    writer.write_table(self._table(block, schema), row_group_size=block.rows.height)
                    yield spool.drain()
        yield spool.drain()

    def _table(self, block: Block, schema: pa.Schema) -> pa.Table:
        rows = block.rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(self._columns)
        for name, column in zip(rows.column_names, rows.columns, strict=True):
            self._nulls[name] += column.null_count
        labels = [self._label(name, block.runs) for name in self._labels]
        return pa.Table.from_arrays([*labels, *rows.columns], schema=schema)

    def _label(self, name: str, runs: Sequence[Run]) -> pa.DictionaryArray:
        values = [run.labels[name] for run in runs]
        places = {value: place for place, value in enumerate(dict.fromkeys(values))}
        self._seen[name].update(places)
        ends = pa.array(accumulate(run.rows for run in runs), pa.int32())
        numbers = pa.array([places[value] for value in values], pa.int32())
        each = pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(ends, numbers))
        return pa.DictionaryArray.from_arrays(each, pa.array(list(places)))

    def statistics(self) -> FileStatistics:
        """Return the statistics of the finished file."""
        (metadata,) = self._metadata
        minimum: dict[str, Any] = {name: min(seen) for name, seen in self._seen.items() if seen}
        maximum: dict[str, Any] = {name: max(seen) for name, seen in self._seen.items() if seen}
        for group in (metadata.row_group(index) for index in range(metadata.num_row_groups)):
            for column in (group.column(index) for index in range(group.num_columns)):
                name, found = column.path_in_schema, column.statistics
                if name not in self._seen and found is not None and found.has_min_max:
                    minimum[name] = min(minimum.get(name, found.min), found.min)
                    maximum[name] = max(maximum.get(name, found.max), found.max)
        return FileStatistics(metadata.num_rows, minimum, maximum, self._nulls)


class _Spool(io.RawIOBase):
    """Collects what a writer wrote since it was last emptied."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def drain(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind):
        return "count"
    if pa.types.is_floating(kind):
        return "measure"
    if pa.types.is_date(kind):
        return "date"
    return "truth" if pa.types.is_boolean(kind) else "text"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, date):
        return value.isoformat()
    return value
