"""Parse the CSV text of an archive file into typed rows, and rows that cannot be typed with the reason.

A batch is read by Polars with the declared types at once. Only if something in it does not fit is it read
again, line by line, to find out which rows are bad and why; so good files pay nothing for the care.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
from polars.exceptions import PolarsError

from marketlake.pipeline.contracts.table_type import Column, Kind, TableType
from marketlake.pipeline.ingest.errors import SchemaChangedError
from marketlake.sync.errors import EmptyFileError

BATCH = 8 * 1024 * 1024
"""Bytes of CSV that are parsed at once: what bounds the memory, and what makes a row group of the Parquet
file."""
LONGEST_LINE = 1024 * 1024
"""Bytes; a text without a line break for longer is no CSV."""
ROW_NUMBER = "row_number"

_EARLIEST = int(datetime(2009, 1, 3, tzinfo=UTC).timestamp() * 1000)
_LATEST = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp() * 1000)
"""Milliseconds. What lies outside is no time of a trade: the oldest crypto-asset is of 2009."""
_MICROSECONDS_FROM = 100_000_000_000_000
"""A number as large is microseconds: as milliseconds it would lie in the year 5138."""
_NULLS = ["", '""']
_BLANKS = " \t\r"
"""What may stand around a field: Polars' own reader passes over some of it, and a row's verdict must not
depend on how it was read."""
BAD_ROWS = pl.Schema({ROW_NUMBER: pl.Int64(), "raw": pl.String(), "reason": pl.String()})


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive rows of a file."""

    rows: pl.DataFrame
    """`row_number` (1 is the first row below a header) and the declared columns, typed."""
    bad: pl.DataFrame
    """`row_number`, `raw` (the line), `reason`."""


def sniff_header(first: bytes) -> bool:
    """Return whether a file begins with a header: with a letter, where data begins with a digit (or a sign).

    Binance wrote headers to some files and not to others; the first byte is the only sign (ARCHIVE facts of
    the
    venue: spot never, futures since 2022).
    """
    return first.removeprefix(codecs.BOM_UTF8).lstrip(b'"')[:1].isalpha()


def text_batches(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Cut a stream of text into batches of about :data:`BATCH` bytes that end with a line.

    Raises:
        SchemaChangedError: there are no lines in it.
    """
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size < BATCH:
            continue
        text = b"".join(held)
        cut = text.rfind(b"\n") + 1
        if len(text) - cut > LONGEST_LINE:
            raise SchemaChangedError(
                f"{name}: no line ends within {LONGEST_LINE} bytes; expected CSV, got "
                f"{text[cut : cut + 60]!r}…. Look at the file in landing; nothing of it was taken over."
            )
        yield text[:cut]
        held, size = [text[cut:]], len(text) - cut
    if rest := b"".join(held):
        yield rest


class CsvParser:
    """Parses the batches of one file, in order."""

    def __init__(self, declared: TableType, columns: Sequence[str], name: str) -> None:
        """Prepare to parse.

        Args:
            declared: the data type.
            columns: names of the file's columns, in order.
            name: of the file, for messages.
        """
        self._declared = declared
        self._columns = tuple(columns)
        self.name = name
        kinds = {column.name: column for column in declared.columns}
        self._known: dict[str, Column] = {name: kinds[name] for name in self._columns if name in kinds}
        self._raw = {name: _raw_type(kinds.get(name)) for name in self._columns}
        self._required = [name for name, column in self._known.items() if not column.optional]
        self._next = 1
        self.header: bool | None = None
        """Whether the file has a header; None before the first batch."""

    def parse(self, text: bytes) -> Batch:
        """Return the rows of the next batch.

        Raises:
            SchemaChangedError: the header, or every row of the first batch, differs from what is declared.
            EmptyFileError: there is no text.
        """
        first = self.header is None
        if first:
            text = self._without_header(text)
        if not text:
            return Batch(self._typed(self._empty()), BAD_ROWS.to_frame())
        frame = self._read_at_once(text)
        batch = self._one_by_one(text) if frame is None else Batch(self._typed(frame), BAD_ROWS.to_frame())
        if first and batch.rows.is_empty():
            raise self._changed(batch.bad["raw"][0], f"the first row's reason: {batch.bad['reason'][0]}")
        self._next += batch.rows.height + batch.bad.height
        return batch

    def parse_whole(self, texts: Sequence[bytes]) -> tuple[pl.DataFrame, tuple[int, ...]] | None:
        """Return the rows of some whole files at once, and how many are of each; None if any needs a closer look.

        Small files cost as much as their rows this way, and nothing each.

        Raises:
            SchemaChangedError: a header differs from what is declared.
            EmptyFileError: one of them has no text.
        """
        bodies = [self._body(text) for text in texts]
        counts = tuple(body.count(b"\n") for body in bodies)
        frame = self._read_at_once(b"".join(bodies))
        if frame is None or frame.height != sum(counts) or not all(counts):
            return None
        ends = pl.Series(counts, dtype=pl.Int64) + 1
        numbers = pl.int_ranges(1, ends, dtype=pl.Int64, eager=True).explode()
        return self._typed(frame.with_columns(numbers.alias(ROW_NUMBER))), counts

    def _body(self, text: bytes) -> bytes:
        body = self._without_header(text)
        return body if body.endswith(b"\n") else body + b"\n"

    def _without_header(self, text: bytes) -> bytes:
        if not text.strip():
            raise EmptyFileError(
                f"{self.name}: there is no row in it. Nothing was parsed; collect again once the venue has "
                "replaced it."
            )
        self.header = sniff_header(text[:8])
        if not self.header:
            return text
        line, _, rest = text.partition(b"\n")
        got = line.decode("utf-8-sig", "replace").strip()
        if tuple(name.strip().strip('"') for name in got.split(",")) != self._columns:
            raise self._changed(got, "this is its header")
        return rest

    def _changed(self, got: str, what: str) -> SchemaChangedError:
        return SchemaChangedError(
            f"{self.name}: its columns are not those of {self._declared.data_type}. Expected "
            f"{len(self._columns)}: {','.join(self._columns)}; got {got.count(',') + 1}: {got[:300]} "
            f"({what}). The venue may have changed the format: nothing of the file was taken over; the "
            "contract of its rows as published has to follow the change."
        )

    def _empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self._raw)

    def _read_at_once(self, text: bytes) -> pl.DataFrame | None:
        """All rows with their raw types; None if any of them needs a closer look."""
        try:
            frame = pl.read_csv(text, has_header=False, schema=self._raw, quote_char=None)
        except PolarsError:
            return None
        return frame if self._all_wide(text, frame) and self._all_good(frame) else None

    def _all_wide(self, text: bytes, frame: pl.DataFrame) -> bool:
        """Whether each row has all its fields; Polars refuses longer rows, and fills shorter ones with nulls.

        So separators have to be counted only where the last column has a null.
        """
        separators = (len(self._columns) - 1) * frame.height
        return not frame[self._columns[-1]].null_count() or text.count(b",") == separators

    def _all_good(self, frame: pl.DataFrame) -> bool:
        looks = [pl.col(name).null_count().alias(f"nulls of {name}") for name in self._required]
        for name, column in self._known.items():
            if column.kind is Kind.TEXT:
                blank = pl.col(name).str.strip_chars(_BLANKS).is_in(_NULLS)
                looks.append(blank.sum().alias(f"blanks of {name}"))
            elif column.kind is Kind.DOUBLE:  # a single NaN or infinity makes the sum one
                looks.append(pl.col(name).sum().is_finite().not_().cast(pl.UInt32).alias(f"sum of {name}"))
            elif column.kind is Kind.TIME:
                span = (pl.col(name).min(), pl.col(name).max())
                same_unit = _plausible(span[0]) & (
                    (span[1] < _MICROSECONDS_FROM) == (span[0] < _MICROSECONDS_FROM)
                )
                good = _plausible(span[1]) & (same_unit | _plausible(pl.col(name)).all())
                looks.append(good.not_().cast(pl.UInt32).alias(f"span of {name}"))
        return not any(frame.select(looks).row(0))

    def _typed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Declared columns with their final types, and row numbers (unless there are some already)."""
        expressions = []
        for column in self._declared.columns:
            if column.name not in self._known:
                expressions.append(pl.lit(None, column.polars).alias(column.name))
            elif column.kind is Kind.TIME:
                expressions.append(_time(frame, column.name))
            elif column.kind is Kind.TEXT:
                expressions.append(pl.col(column.name).str.strip_chars(_BLANKS))
            else:
                expressions.append(pl.col(column.name))
        if ROW_NUMBER in frame.columns:
            return frame.select(ROW_NUMBER, *expressions)
        numbers = pl.int_range(self._next, self._next + frame.height, dtype=pl.Int64, eager=True)
        return frame.select(numbers.alias(ROW_NUMBER), *expressions)

    def _one_by_one(self, text: bytes) -> Batch:
        lines = text.split(b"\n")
        if not lines[-1]:
            lines.pop()
        raw = pl.Series(
            "raw", [line.rstrip(b"\r").decode("utf-8", "replace") for line in lines], dtype=pl.String
        )
        numbers = pl.int_range(self._next, self._next + len(lines), dtype=pl.Int64, eager=True).alias(
            ROW_NUMBER
        )
        width = len(self._columns)
        fields = pl.DataFrame([numbers, raw]).with_columns(
            pl.col("raw").str.split(",").alias("fields"),
        )
        named = fields.with_columns(
            pl.col("fields").list.get(place, null_on_oob=True).str.strip_chars(_BLANKS).alias(name)
            for place, name in enumerate(self._columns)
        )
        named = named.with_columns(
            pl.when(pl.col(name).is_in(_NULLS)).then(None).otherwise(pl.col(name)).alias(name)
            for name in self._columns
        )
        count = pl.col("fields").list.len()
        reasons = [
            pl.when(count != width).then(pl.format("{} columns where {} belong", count, pl.lit(width))),
            *(reason for column in self._known.values() for reason in _reasons(column)),
        ]
        judged = named.with_columns(pl.coalesce(reasons).alias("reason"))
        good = judged.filter(pl.col("reason").is_null()).select(
            ROW_NUMBER, *(_cast(name, kind) for name, kind in self._raw.items())
        )
        return Batch(
            self._typed(good), judged.filter(pl.col("reason").is_not_null()).select(BAD_ROWS.names())
        )


def _raw_type(column: Column | None) -> pl.DataType:
    if column is None:
        return pl.String()
    return pl.Int64() if column.kind is Kind.TIME else column.polars


def _cast(name: str, kind: pl.DataType) -> pl.Expr:
    text = pl.col(name)
    if kind == pl.Boolean:
        lower = text.str.to_lowercase()
        return pl.when(lower == "true").then(True).when(lower == "false").then(False).alias(name)
    return text.cast(kind, strict=False)


def _reasons(column: Column) -> Iterator[pl.Expr]:
    """Why a row's text in this column is bad: null if it is not."""
    text = pl.col(column.name)
    quoted = pl.format("{}: '{}' ", pl.lit(column.name), text)
    if not column.optional:
        yield pl.when(text.is_null()).then(pl.lit(f"{column.name} is empty"))
    value = _cast(column.name, _raw_type(column))
    noun = {
        Kind.INTEGER: "whole number",
        Kind.DOUBLE: "number",
        Kind.BOOLEAN: "truth value",
        Kind.TIME: "time",
        Kind.TEXT: "text",
    }
    bad = text.is_not_null() & value.is_null()
    yield pl.when(bad).then(pl.concat_str(quoted, pl.lit(f"is no {noun[column.kind]}")))
    if column.kind is Kind.DOUBLE:
        yield pl.when(~value.is_finite()).then(pl.concat_str(quoted, pl.lit("is no finite number")))
    if column.kind is Kind.TIME:
        outside = ~_plausible(value)
        remark = pl.lit("is no time since 2009 in milliseconds or microseconds")
        yield pl.when(outside).then(pl.concat_str(quoted, remark))


def _plausible(value: pl.Expr) -> pl.Expr:
    return value.is_between(_EARLIEST, _LATEST) | value.is_between(_EARLIEST * 1000, _LATEST * 1000)


def _time(frame: pl.DataFrame, name: str) -> pl.Expr:
    """UTC microseconds; the unit is one for nearly every file, and then no row is looked at alone."""
    number = pl.col(name)
    smallest, largest = frame[name].min(), frame[name].max()
    if not isinstance(smallest, int) or not isinstance(largest, int) or smallest >= _MICROSECONDS_FROM:
        micros = number
    elif largest < _MICROSECONDS_FROM:
        micros = number * 1000
    else:
        micros = pl.when(number < _MICROSECONDS_FROM).then(number * 1000).otherwise(number)
    return micros.cast(pl.Datetime("us", "UTC")).alias(name)
