"""Archive files for tests: the real samples, and synthetic ones in the same form."""

import io
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import obstore
from marketlake.archive.venues.binance import Binance
from marketlake.domain.archive import ArchiveFile
from marketlake.pipeline.ingest.bronze import Ingested, ingest_object
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
    lake, key: str, text: str | bytes | None = None, *, body: bytes | None = None, **changed
) -> Ingested:
    """A file's rows into bronze, from a landing bucket of its own: the real one's if no text is given."""
    landing = MemoryStore()
    if body is None:
        body = (SAMPLES / key).read_bytes() if text is None else zipped(text)
    obstore.put(landing, "object.zip", body)
    return ingest_object(replace(archive_file(key), **changed), landing, "object.zip", lake, LIMITS)


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
