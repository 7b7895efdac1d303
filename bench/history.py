"""What a commit costs on tables with a long history, beside a plain append of the Delta library."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID, uuid4

import obstore
import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.transaction import AddAction
from marketlake.archive.collection.admission import Archive, Content
from marketlake.archive.collection.tasks import GroupTask
from marketlake.archive.ledger import Receipt
from marketlake.domain.archive import ArchiveFile, Frequency
from marketlake.infrastructure.postgres import Postgres, migrate
from marketlake.infrastructure.storage.delta import (
    DataFile,
    TableShape,
    addition,
    open_table,
    write_blocks,
)
from marketlake.infrastructure.storage.parquet import Block
from marketlake.infrastructure.storage.stores import Lake
from marketlake.pipeline.contracts.contract import Contract
from marketlake.pipeline.contracts.tables import contracts
from marketlake.pipeline.ingest import staging
from marketlake.pipeline.ingest.bronze import bronze_shape
from marketlake.pipeline.ingest.committer import Committer
from marketlake.pipeline.ingest.staging import StagedUnit
from marketlake.settings import Database, EventBus, ObjectStore, VenueEndpoint

from tests import servers
from tests.provisioning import own_buckets

TABLES, DATA_FILES, A_DATA_FILE = 40, 33_000, 30
"""Tables, data files of each, and source files of one: a million source files a table."""
ROUNDS = 4
_PER_COMMIT = 1000
_DAY = date(2024, 3, 1)
_CONTRACT = "binance_klines"


def run() -> None:
    """Print what commits to such tables cost."""
    with (
        servers.server_folder() as folder,
        servers.postgres(folder) as server,
        servers.minio(folder) as store,
    ):
        settings = own_buckets(store[1])
        lake = Lake.of(settings)
        began = time.monotonic()
        _simulate(lake)
        print(
            f"{TABLES} tables of {DATA_FILES:,} data files, which stand for {DATA_FILES * A_DATA_FILE:,} source "
            f"files each; their logs were made in {time.monotonic() - began:.0f} s"
        )
        database = server.create_database("history")
        told = {
            "store": _revealed(
                settings.model_dump(mode="json"), settings.secret_access_key.get_secret_value()
            ),
            "database": _revealed(database.model_dump(mode="json"), database.password.get_secret_value()),
        }
        measured: dict[str, dict[str, float]] = {}
        for what in ("append", "commit"):
            done = subprocess.run(
                [sys.executable, "-m", "bench.history", what],
                input=json.dumps(told),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            measured[what] = json.loads(done.stdout)
    peer = measured["append"]["cpu_ms"]
    for name, value in measured["commit"].items():
        unit = "MiB" if name.startswith("peak") else "ms"
        ratio = f"  {value / peer:.2f} x a plain append" if "a commit" in name else ""
        print(f"{name:<70} {value:>8.1f} {unit:<4}{ratio}")
    print(f"{'a plain append to one of them, loaded, processor time':<70} {peer:>8.1f} ms")
    print(f"{'peak resident of the process that appends to one':<70} {measured['append']['peak']:>8.1f} MiB")


def _revealed(fields: dict[str, object], secret: str) -> dict[str, object]:
    name = "secret_access_key" if "secret_access_key" in fields else "password"
    return {**fields, name: secret}


def _contract() -> Contract:
    return contracts().bronze[_CONTRACT]


def _shape(number: int) -> TableShape:
    return replace(bronze_shape(_contract()), path=f"bronze/simulated_{number:02}")


def _shape_of(table: str) -> TableShape:
    return _shape(int(table.rpartition("_")[2]))


def _data_file(lake: Lake, shape: TableShape) -> DataFile:
    """A real one, with its statistics."""
    at = datetime(2024, 3, 1, tzinfo=UTC)
    values = {field.name: [at] if str(field.type).startswith("timestamp") else [1] for field in shape.columns}
    types = {name: pl.DataFrame(shape.columns.empty_table()).schema[name] for name in shape.columns.names}
    frame = pl.DataFrame(values).cast(dict(types))
    labels = {**dict.fromkeys(shape.labels, "x"), "venue": "binance", "market": "spot", "symbol": "S0001USDT"}
    written = write_blocks(lake, shape, f"spot/{uuid4()}.parquet", [Block.of(frame, labels)])
    if written is None:
        raise AssertionError("it has a row")
    return written


def _simulate(lake: Lake) -> None:
    """Write one log, and copy it to the other tables."""
    first = _shape(0)
    table = open_table(lake, first)
    one = _data_file(lake, first)
    for begin in range(0, DATA_FILES, _PER_COMMIT):
        added = [_like(one, number) for number in range(begin, begin + _PER_COMMIT)]
        table.create_write_transaction(
            added, "append", first.schema, [], commit_properties=CommitProperties(max_commit_retries=0)
        )
        table.update_incremental()
    table.create_checkpoint()
    names = [
        entry["path"] for page in obstore.list(lake.bucket, f"{first.path}/_delta_log/") for entry in page
    ]
    bodies = {name: obstore.get(lake.bucket, name).bytes() for name in names}
    for number in range(1, TABLES):
        for name, body in bodies.items():
            obstore.put(lake.bucket, name.replace(first.path, _shape(number).path, 1), bytes(body))


def _like(one: DataFile, number: int) -> AddAction:
    return addition(
        replace(
            one,
            key=f"spot/{uuid4()}.parquet",
            statistics=one.statistics.replace("S0001USDT", f"S{number % 500:04}USDT"),
        )
    )


def _append(lake: Lake) -> dict[str, float]:
    """The peer: the library's own append of a row."""
    shape = _shape(TABLES - 1)
    table = DeltaTable(lake.uri(shape.path), storage_options=lake.options)
    rows = pl.read_parquet(
        lake.uri(f"{_shape(0).path}/{_existing(lake)}"), storage_options=lake.options or None
    ).to_arrow()
    spent: list[float] = []
    for _ in range(ROUNDS):
        began = time.process_time()
        write_deltalake(table, rows.cast(shape.schema), mode="append")
        spent.append(1000 * (time.process_time() - began))
    return {"cpu_ms": min(spent), "peak": _peak_mib()}


def _existing(lake: Lake) -> str:
    pages = obstore.list(lake.bucket, f"{_shape(0).path}/spot/")
    return next(entry["path"] for page in pages for entry in page).partition("simulated_00/")[2]


def _commits(lake: Lake, postgres: Postgres) -> dict[str, float]:
    """Commits of a group to each table, by one committer."""
    migrate(postgres)
    committer = Committer(
        postgres, lake, shape_of=_shape_of, owner=Archive(EventBus(bootstrap_servers="127.0.0.1:1"))
    )
    committer.take_over()
    one = _data_file(lake, _shape(0))
    took: list[float] = []
    waited: list[float] = []
    for turn in range(ROUNDS):
        for number in range(TABLES):
            _stage(postgres, one, number, turn)
        began, processor = time.monotonic(), time.process_time()
        made = committer.commit_waiting()
        took.append(1000 * (time.process_time() - processor) / TABLES)
        waited.append(1000 * (time.monotonic() - began) / TABLES)
        if made != TABLES:
            raise SystemExit(f"{made} commits were made, {TABLES} were due")
    return {
        "a commit to each of them by one committer, the first, processor time": took[0],
        "a commit, the following ones, processor time": sum(took[1:]) / len(took[1:]),
        "a commit, the following ones, wall": sum(waited[1:]) / len(waited[1:]),
        "peak resident of the committer's process": _peak_mib(),
    }


def _stage(postgres: Postgres, one: DataFile, table: int, turn: int) -> None:
    files = list(_files(table, turn))
    unit = uuid4()
    with postgres.transaction() as connection:
        (own,) = staging.add_files(
            connection, unit, _shape(table).path, [replace(one, key=f"spot/{uuid4()}.parquet")]
        )
        receipts = tuple(
            Receipt(
                key=file.key,
                version=1,
                former_version=None,
                sha256="0" * 64,
                header=False,
                rows=1440,
                quarantined=0,
                first_day=_DAY,
                last_day=_DAY,
                landing_key=file.key,
                landing_version_id=None,
                data_file_id=own,
            )
            for file in files
        )
        task = GroupTask.of(files, VenueEndpoint(endpoint="http://127.0.0.1:1", bucket="b"), UUID(int=1))
        content = Content(task=task, receipts=receipts, moved={}).to_json()
        staging.stage(connection, StagedUnit(unit, _shape(table).path, (), content))


def _files(table: int, turn: int) -> Iterator[ArchiveFile]:
    for number in range(A_DATA_FILE):
        yield ArchiveFile(
            venue="binance",
            market="spot",
            data_type="klines",
            symbol=f"S{number:04}USDT",
            interval="1m",
            frequency=Frequency.DAILY,
            start=_DAY,
            end=_DAY,
            key=f"simulated/{table}/{turn}/{number}.zip",
            size=60_000,
            etag="e",
            last_modified=datetime(2024, 3, 2, tzinfo=UTC),
            sidecar_key=None,
        )


def _peak_mib() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main(what: str) -> None:
    """Measure in a process of its own: settings come on standard input, figures go to standard output."""
    told = json.loads(sys.stdin.read())
    lake = Lake.of(ObjectStore(**told["store"]))
    if what == "append":
        print(json.dumps(_append(lake)))
        return
    with Postgres(Database(**told["database"]), application="bench") as postgres:
        print(json.dumps(_commits(lake, postgres)))


if __name__ == "__main__":
    main(sys.argv[1])
