"""Archive files for tests: the real samples, and synthetic ones in the same form."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import obstore
import polars as pl
from deltalake import DeltaTable
from marketlake.archive.venues.binance import Binance
from marketlake.domain.archive import ArchiveFile
from marketlake.infrastructure.storage.delta import DataFile, data_files, open_table
from marketlake.infrastructure.storage.stores import Lake
from marketlake.infrastructure.storage.table_log import TableLog
from marketlake.pipeline.ingest.bronze import Bronze, FileRows, Ingested, LandedFile, shape_of
from marketlake.pipeline.ingest.zip_member import InflationLimits
from marketlake.settings import Collection
from obstore.store import MemoryStore

SAMPLES = Path(__file__).parents[4] / "samples"
KLINES = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01.zip"
FUNDING = "data/futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2026-04.zip"
TRADES = "data/futures/cm/daily/aggTrades/BTCUSD_PERP/BTCUSD_PERP-aggTrades-2026-05-08.zip"
LIMITS = InflationLimits.of(Collection())
SPOT_TRADES = "data/spot/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2026-05-08.zip"


def archive_file(key: str) -> ArchiveFile:
    """What a listing would say about a key."""
    fields = Binance().parse_key(key)
    assert fields is not None, key
    return ArchiveFile(
        venue="binance",
        market=fields.market,
        data_type=fields.data_type,
        symbol=fields.symbol,
        interval=fields.interval,
        frequency=fields.frequency,
        start=fields.start,
        end=fields.end,
        key=key,
        size=1,
        etag="e",
        last_modified=datetime(2026, 1, 1, tzinfo=UTC),
    )


def zipped(text: str | bytes, name: str = "file.csv", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with one member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, text)
    return buffer.getvalue()


def sample(key: str) -> str:
    """The CSV of a real file."""
    with zipfile.ZipFile(SAMPLES / key) as archive:
        return archive.read(archive.namelist()[0]).decode()


def bring_in(
    lake: Lake, key: str, text: str | bytes | None = None, *, body: bytes | None = None, **changed: Any
) -> FileRows:
    """A file's rows into bronze, from a landing bucket of its own: the real one's if no text is given.

    They replace those that bronze has of the file. Whatever the file cannot be taken over for is raised.
    """
    landing = MemoryStore()
    if body is None:
        body = (SAMPLES / key).read_bytes() if text is None else zipped(text)
    obstore.put(landing, "object.zip", body)
    file = replace(archive_file(key), **changed)
    landed = LandedFile(file, "object.zip", None, was_quarantined=_is_quarantined(lake, key))
    bronze = Bronze(lake, landing, LIMITS)
    done = bronze.ingest([landed], str(uuid4()))
    if key in done.failures:
        raise done.failures[key]
    commit(lake, bronze.table(file), done.data_file, replacing=key)
    return done.files[key]


def written(lake: Lake, bodies: Mapping[str, bytes]) -> Ingested:
    """The rows of some zips, by key, in one data file of bronze that is not committed."""
    landed = [LandedFile(archive_file(key), f"binance/{key}", body) for key, body in bodies.items()]
    return Bronze(lake, MemoryStore(), LIMITS).ingest(landed, str(uuid4()))


def commit(lake: Lake, table: str, added: DataFile | None, *, replacing: str | None = None) -> None:
    """Put a data file into a table's log, in the place of those that hold the rows of one source file only."""
    log = TableLog(lake, shape_of(table))
    last = log.read()
    log.widen()
    live = data_files(open_table(lake, shape_of(table)))
    if live.is_empty():
        former = live
    else:
        former = live.filter(pl.col("min.source_key") == replacing, pl.col("max.source_key") == replacing)
    removed = [DataFile(row["path"], row["size_bytes"], row["num_records"], "") for row in former.to_dicts()]
    if added or removed:
        log.commit(last + 1, [added] if added else [], removed)


def _is_quarantined(lake: Lake, key: str) -> bool:
    uri = lake.uri("quarantine")
    if not DeltaTable.is_deltatable(uri):
        return False
    found = pl.scan_delta(uri).filter(pl.col("stage") == "bronze", pl.col("source_key") == key)
    return not found.head(1).collect().is_empty()


def kline(minute: int, *, close: str = "2.5", day: int = 1_577_836_800_000, **changed: str) -> str:
    """A synthetic bar of 2020-01-01 (or of the day that starts at `day`, in milliseconds)."""
    start = day + minute * 60_000
    fields = {
        "open_time": str(start), "open": "2", "high": "3", "low": "1", "close": close, "volume": "10",
        "close_time": str(start + 59_999), "quote_volume": "25", "count": "4", "taker_buy_volume": "6",
        "taker_buy_quote_volume": "15", "ignore": "0",
    }  # fmt: skip
    return ",".join({**fields, **changed}.values())


def trade(number: int, time: int, *, price: str = "100.5", quantity: str = "2", tail: str = "true") -> str:
    """A synthetic aggregated trade of a futures market."""
    return f"{number},{price},{quantity},{number * 2},{number * 2 + 1},{time},{tail}"


def lines(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)
