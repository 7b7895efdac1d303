"""How much CSV a processor takes from a zip in the landing bucket to a committed Delta table in a second.

The file is the real aggTrades sample, repeated with its numbers carried on. The peer does the same with what
one would reach for: zipfile, Polars' CSV reader, write_deltalake. Both read from and write to the same MinIO,
each in a process of its own; what counts is the processor time of that process over all its threads, and the
best of several runs, since others may use the machine.
"""

import io
import json
import multiprocessing
import resource
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import median
from uuid import uuid4

import obstore
import polars as pl
from deltalake import write_deltalake
from marketlake.domain.archive import ArchiveFile, Frequency
from marketlake.infrastructure.storage.parquet import Block, ParquetStream
from marketlake.infrastructure.storage.stores import Lake, landing_store
from marketlake.infrastructure.storage.table_log import TableLog
from marketlake.pipeline.contracts.tables import file_columns, table_type
from marketlake.pipeline.ingest.bronze import Bronze, LandedFile, bronze_shape
from marketlake.pipeline.ingest.csv_parser import CsvParser, text_batches
from marketlake.pipeline.ingest.zip_member import InflationLimits, Member, StoredZip, open_member
from marketlake.settings import Collection, ObjectStore

from tests import servers
from tests.provisioning import own_buckets

GOAL = 150
"""MB of CSV per CPU-second."""
TIMES = 20
"""How often the sample is repeated: 134 MB of CSV."""
RUNS = 5
KEY = "data/futures/cm/daily/aggTrades/BTCUSD_PERP/BTCUSD_PERP-aggTrades-2026-05-08.zip"
SAMPLE = Path(__file__).parents[1] / "samples" / KEY
FILE = ArchiveFile(
    venue="binance",
    market="cm",
    data_type="aggTrades",
    symbol="BTCUSD_PERP",
    interval=None,
    frequency=Frequency.DAILY,
    start=date(2026, 5, 8),
    end=date(2026, 5, 8),
    key=KEY,
    size=0,
    etag="",
    last_modified=datetime(2026, 5, 9, tzinfo=UTC),
)
AGG_TRADES = table_type(FILE.venue, FILE.market, FILE.data_type)
LIMITS = InflationLimits.of(Collection())
_PLACES = pl.Decimal(38, 8)
"""18 digits would not do: volumes of cheap coins have more than ten before the point and eight behind it."""


def run() -> None:
    """Measure, and print megabytes per CPU-second and the ratio to the peer."""
    text = _scaled(SAMPLE, TIMES)
    megabytes = len(text) / 1e6
    with tempfile.TemporaryDirectory() as folder, servers.minio(Path(folder)) as (_, minio):
        store = own_buckets(minio)
        obstore.put(landing_store(store), KEY, _zipped(text))
        print(
            f"zip → bronze Delta: {megabytes:.0f} MB of CSV, {text.count(10) - 1:,} rows, best of {RUNS} runs"
        )
        ours = _measured("marketlake", _marketlake, store, megabytes)
        peer = _measured("peer: zipfile + polars.read_csv + write_deltalake", _peer, store, megabytes)
        print(f"{'ratio to the peer':<70} {ours / peer:>8.2f}")
        print(f"{'ratio to the goal of 150 MB per CPU-second':<70} {ours / GOAL:>8.2f}")
        print("where the time goes (each line does what is above it, too)")
        _measured("  read from the store, inflate, prove CRC", _inflate, store, megabytes)
        _measured("  parse and check", _parse, store, megabytes)
        _measured("  encode as Parquet", _encode, store, megabytes)
        print("prices and quantities (parse and write to memory, Polars)")
        _measured("  as doubles", _as_doubles, store, megabytes)
        _measured("  as decimals of 38 digits", _as_decimals, store, megabytes)


def _measured(
    name: str, contestant: Callable[[ObjectStore], int], store: ObjectStore, megabytes: float
) -> float:
    secret = store.secret_access_key.get_secret_value()
    told = json.dumps({**json.loads(store.model_dump_json()), "secret_access_key": secret})
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        seconds = process.submit(_processor_seconds, contestant, told).result()
    best = megabytes / min(seconds)
    print(f"{name:<70} {best:>8.1f} MB/CPU-s (median {megabytes / median(seconds):.1f})", flush=True)
    return best


def _processor_seconds(contestant: Callable[[ObjectStore], int], settings: str) -> list[float]:
    store = ObjectStore(**json.loads(settings))
    seconds = []
    for _ in range(RUNS + 1):
        began = _processor()
        contestant(store)
        seconds.append(_processor() - began)
    return seconds[1:]  # the first one also pays for what is loaded and made once


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _marketlake(store: ObjectStore) -> int:
    lake = Lake.of(store)
    bronze = Bronze(lake, landing_store(store), LIMITS)
    done = bronze.ingest([LandedFile(FILE, KEY, None)], str(uuid4()))
    assert done.data_file is not None
    log = TableLog(lake, bronze_shape(AGG_TRADES.bronze))
    log.commit(log.read() + 1, [done.data_file], [])
    return done.data_file.rows


def _peer(store: ObjectStore) -> int:
    body = bytes(obstore.get(landing_store(store), KEY).bytes())
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        frame = pl.read_csv(archive.read(archive.namelist()[0]))
    rows = frame.with_columns(
        (pl.col("transact_time") * 1000).cast(pl.Datetime("us", "UTC")),
        venue=pl.lit("binance"),
        market=pl.lit("cm"),
        symbol=pl.lit("BTCUSD_PERP"),
        source_key=pl.lit(KEY),
        row_number=pl.int_range(1, pl.len() + 1),
    )
    lake = Lake.of(store)
    write_deltalake(lake.uri("peer"), rows, mode="append", storage_options=lake.options)
    return rows.height


def _member(store: ObjectStore) -> Member:
    return open_member(StoredZip(landing_store(store), KEY), KEY, LIMITS)


def _inflate(store: ObjectStore) -> int:
    return sum(map(len, text_batches(_member(store).pieces(), KEY)))


def _frames(store: ObjectStore) -> Iterator[pl.DataFrame]:
    parser = CsvParser(AGG_TRADES, file_columns(FILE), KEY)
    for text in text_batches(_member(store).pieces(), KEY):
        yield parser.parse(text).rows


def _parse(store: ObjectStore) -> int:
    return sum(frame.height for frame in _frames(store))


def _encode(store: ObjectStore) -> int:
    shape = bronze_shape(AGG_TRADES.bronze)
    labels = {
        "venue": "binance",
        "market": "cm",
        "symbol": "BTCUSD_PERP",
        "frequency": "daily",
        "source_key": KEY,
    }
    blocks = (Block.of(rows, labels) for rows in _frames(store))
    return sum(map(len, ParquetStream(shape.columns, shape.labels).encode(blocks)))


def _as_doubles(store: ObjectStore) -> int:
    return _with_prices(store, pl.Float64())


def _as_decimals(store: ObjectStore) -> int:
    return _with_prices(store, _PLACES)


def _with_prices(store: ObjectStore, kind: pl.DataType) -> int:
    text = b"".join(_member(store).pieces())
    frame = pl.read_csv(text, schema_overrides={"price": kind, "quantity": kind})
    frame.write_parquet(io.BytesIO(), compression="zstd", compression_level=1)
    return frame.height


def _scaled(sample: Path, times: int) -> bytes:
    """The sample's CSV, repeated; the numbers of trades are carried on, all else stays real."""
    with zipfile.ZipFile(sample) as archive:
        frame = pl.read_csv(archive.read(archive.namelist()[0]), infer_schema=False)
    numbers = ("agg_trade_id", "first_trade_id", "last_trade_id")
    counted = frame.with_columns(pl.col(name).cast(pl.Int64) for name in numbers)
    steps = {name: counted[name].max() - counted[name].min() + 1 for name in numbers}
    repeated = [
        counted.with_columns(pl.col(name) + time * step for name, step in steps.items())
        for time in range(times)
    ]
    return pl.concat(repeated).write_csv().encode()


def _zipped(text: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("BTCUSD_PERP-aggTrades-2026-05-08.csv", text)
    return buffer.getvalue()
