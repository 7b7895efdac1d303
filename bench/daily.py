"""Daily life: each day a file of every series, and a few former ones anew. Does it stay as cheap as it began?

The venue is left out, and files are small (bars of an hour): what is measured is what grows with the lake's history.
"""

import io
import random
import threading
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import pairwise
from string import ascii_uppercase
from typing import cast
from uuid import uuid4

import obstore
import polars as pl
from deltalake import DeltaTable
from marketlake.archive import ledger
from marketlake.archive.collection import batches
from marketlake.archive.collection.admission import Archive
from marketlake.archive.collection.collector import Collector
from marketlake.archive.collection.groups import groups
from marketlake.archive.collection.refiner import Refiner, cut
from marketlake.archive.collection.tasks import GroupTask, RefinementTask
from marketlake.archive.collection.transfers import Transfers
from marketlake.archive.upkeep import Maintainer
from marketlake.domain.archive import ArchiveFile, Frequency, Selection
from marketlake.infrastructure.bus.outbox import Relay
from marketlake.infrastructure.postgres import Postgres, migrate
from marketlake.infrastructure.storage.delta import data_files
from marketlake.infrastructure.storage.stores import Lake, landing_store
from marketlake.pipeline.batch.silver import refine_many
from marketlake.pipeline.ingest.bronze import Bronze, shape_of
from marketlake.pipeline.ingest.committer import Committer
from marketlake.pipeline.ingest.zip_member import InflationLimits
from marketlake.settings import EventBus, Settings, VenueEndpoint, WorkflowEngine
from marketlake.sync.copy import CopiedObject
from marketlake.workers import assignments
from marketlake.workers.worker import WorkerProcess

from tests import servers
from tests.provisioning import own_buckets

DAYS, SYMBOLS, REISSUED = 365, 500, 0.01
FIRST_DAY = date(2024, 1, 1)
EARLY, AROUND = 10, 3
"""The day that the last one is held against, and how many days around each are averaged."""
KLINES = Selection(venue="binance", market="spot", data_type="klines")
ENDPOINT = VenueEndpoint(endpoint="http://127.0.0.1:1", bucket="b")
_SEED = 11


def symbol_of(number: int) -> str:
    """Return a symbol; they begin with all letters."""
    return f"{ascii_uppercase[number % 26]}{number:04}USDT"


@dataclass
class Published:
    """What the venue shows: the newest version of each file."""

    drawn: random.Random
    files: list[ArchiveFile] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)

    def day(self, number: int) -> list[ArchiveFile]:
        """The files that are new or renewed on a day."""
        day = FIRST_DAY + timedelta(days=number)
        again = self.drawn.sample(self.files, min(len(self.files), int(SYMBOLS * REISSUED)))
        new = [_file(symbol_of(symbol), day) for symbol in range(SYMBOLS)]
        self.files += new
        for file in [*new, *again]:
            self.versions[file.key] = self.versions.get(file.key, 0) + 1
        return [*new, *(self.listed(file) for file in again)]

    def listed(self, file: ArchiveFile) -> ArchiveFile:
        """A file as it is listed now."""
        return replace(file, etag=f"v{self.versions[file.key]}")

    def bring(self, wanted: Sequence[ArchiveFile], *_: object, **__: object) -> Mapping[str, CopiedObject]:
        """In place of the copies: the files' bytes."""
        return {file.key: self._copied(file) for file in wanted}

    def _copied(self, file: ArchiveFile) -> CopiedObject:
        midnight = (file.start - date(1970, 1, 1)).days * 86_400_000
        version = self.versions[file.key]
        rows = "".join(
            f"{begin},1,{version},1,{version},1,{begin + 3_599_999},1,1,1,1,0\n"
            for begin in range(midnight, midnight + 86_400_000, 3_600_000)
        )
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("x.csv", rows)
        data = body.getvalue()
        return CopiedObject(
            key=f"binance/{file.key}",
            size=len(data),
            sha256=sha256(data).hexdigest(),
            etag="e",
            version_id=f"v{version}",
            already_there=False,
            data=data,
        )


def _file(symbol: str, day: date) -> ArchiveFile:
    return ArchiveFile(
        venue="binance",
        market="spot",
        data_type="klines",
        symbol=symbol,
        interval="1h",
        frequency=Frequency.DAILY,
        start=day,
        end=day,
        key=f"data/spot/daily/klines/{symbol}/1h/{symbol}-1h-{day.isoformat()}.zip",
        size=500,
        etag="v1",
        last_modified=datetime(day.year, day.month, day.day, tzinfo=UTC),
    )


class Life:
    """The production collector, committer, refiner and maintainer, one after another in this process."""

    def __init__(self, settings: Settings, postgres: Postgres, lake: Lake) -> None:
        self._postgres = postgres
        self.published = Published(random.Random(_SEED))  # noqa: S311 - to be repeated, not to be secret
        process = WorkerProcess("bench", settings, postgres, cast("Relay", None), threading.Event())
        bronze = Bronze(lake, landing_store(settings.object_store), InflationLimits.of(settings.collection))
        self._collector = Collector(process, transfers=cast("Transfers", self.published), lakehouse=bronze)
        self._refiner = Refiner(process, refine=partial(refine_many, lake))
        self._committer = Committer(postgres, lake, shape_of=shape_of, owner=Archive(settings.event_bus))
        self._maintainer = Maintainer(postgres, lake, settings.object_store)
        self._committer.take_over()

    def day(self, number: int) -> tuple[float, float, float]:
        """Live a day; return the seconds that collecting, refining and upkeep took."""
        batch = uuid4()
        files = self.published.day(number)
        moments = [time.monotonic()]
        with self._postgres.transaction() as connection:
            assignments.beat(connection, "bench", host="bench", pid=1, concurrency=1)
            batches.request(connection, batch, KLINES, ENDPOINT, traceparent=None)
        for group in groups(files, most=256):
            self._work(self._collector, GroupTask.of(group, ENDPOINT, batch))
            self._committer.commit_waiting()
        moments.append(time.monotonic())
        with self._postgres.transaction() as connection:
            series = ledger.unrefined_series(connection, KLINES)
        for some in cut(series):
            self._work(self._refiner, RefinementTask.of(some, batch))
        moments.append(time.monotonic())
        day = FIRST_DAY + timedelta(days=number)
        now = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        self._maintainer.maintain(wait=lambda _: False, now=now)
        while self._committer.commit_waiting():
            pass
        moments.append(time.monotonic())
        first, second, third = (b - a for a, b in pairwise(moments))
        return first, second, third

    def _work(self, kind: Collector | Refiner, task: GroupTask | RefinementTask) -> None:
        with self._postgres.transaction() as connection:
            batches.add(connection, task.batch_id, [task], topic="t", traceparent=None)  # type: ignore[list-item]
            _, lease = assignments.claim(connection, task.id, "bench")
        if lease is None:
            raise SystemExit("the task could not be claimed")
        kind.work(lease)


def run() -> None:
    """Print what the days cost, and what lies in the tables at the end."""
    with (
        servers.server_folder() as folder,
        servers.postgres(folder) as server,
        servers.minio(folder) as store,
    ):
        settings = Settings(
            environment="bench",
            object_store=own_buckets(store[1]),
            event_bus=EventBus(bootstrap_servers="127.0.0.1:1"),
            database=server.create_database("daily"),
            workflow_engine=WorkflowEngine(api_url="http://127.0.0.1:1/api", ui_url="http://127.0.0.1:1"),
        )
        lake = Lake.of(settings.object_store)
        with Postgres(settings.database, application="bench") as postgres:
            migrate(postgres)
            life = Life(settings, postgres, lake)
            print(f"{DAYS} days of {SYMBOLS} files, and {REISSUED:.0%} of as many former ones anew")
            took = [life.day(number) for number in range(DAYS)]
        for name, each in zip(("collecting", "refining", "upkeep"), zip(*took, strict=True), strict=True):
            early, late = _around(each, EARLY), _around(each, DAYS)
            print(
                f"{name:<12} day {EARLY}: {early:6.2f} s   day {DAYS}: {late:6.2f} s   {late / early:5.2f} x"
            )
        for table in ("bronze/binance_klines", "silver/candles"):
            _told(lake, table)
        objects = sum(len(page) for page in obstore.list(lake.bucket))
        print(f"objects in the lake, with what retention keeps: {objects}")


def _around(each: Sequence[float], day: int) -> float:
    some = each[max(0, day - AROUND) : day]
    return sum(some) / len(some)


def _told(lake: Lake, table: str) -> None:
    files = data_files(DeltaTable(lake.uri(table), storage_options=lake.options))
    opened = []
    for number in range(0, SYMBOLS, 25):
        symbol = symbol_of(number)
        for month in range(DAYS // 31 + 1):
            first = datetime(FIRST_DAY.year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            last = first + timedelta(days=28)
            near = files.filter(
                pl.col("min.symbol") <= symbol,
                pl.col("max.symbol") >= symbol,
                pl.col("min.open_time") <= last,
                pl.col("max.open_time") >= first,
            )
            opened.append(near.height)
    print(
        f"{table}: {files.height} live data files; a query of one symbol's month opens "
        f"{sum(opened) / len(opened):.1f}, at most {max(opened)}"
    )
