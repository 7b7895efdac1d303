"""What collecting many small files costs, beside the script that one would write by hand."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import obstore
import psutil
import psycopg
from marketlake.infrastructure.storage.stores import bucket_store
from marketlake.settings import ObjectStore, Settings

from bench.archive import archive
from bench.requests import answered
from tests import servers
from tests.deployed import Deployed, deployed

SYMBOLS, DAYS = 40, 25
MANY_SYMBOLS, MANY_DAYS = 200, 100
AT_ONCE = 32
Item = TypeVar("Item")


@dataclass(frozen=True)
class Platform:
    """A platform on this machine, and its servers."""

    deployed: Deployed
    servers: dict[str, servers.Server]
    root: ObjectStore
    """The object store, as who may ask it for its metrics."""

    @property
    def venue_bucket(self) -> str:
        """The bucket of the stand-in venue."""
        return self.deployed.settings.venues["binance"].bucket

    def publish(self, symbols: int, days: int, *, prefix: str) -> int:
        """Put an archive into the stand-in venue; return how many files it has."""
        bucket = bucket_store(self.deployed.settings.object_store, self.venue_bucket)

        async def put_all() -> int:
            turns = asyncio.Semaphore(AT_ONCE)

            async def put(key: str, body: bytes) -> None:
                async with turns:
                    await obstore.put_async(bucket, key, body, use_multipart=False)

            files = 0
            for some in batched(archive(symbols, days, prefix=prefix), 1000):
                await asyncio.gather(*(put(*item) for item in some))
                files += len(some) // 2
            return files

        return asyncio.run(put_all())

    def by_hand(self, prefix: str) -> dict[str, float]:
        """Run the peer."""
        store = self.deployed.settings.object_store
        told = {
            **store.model_dump(mode="json"),
            "secret_access_key": store.secret_access_key.get_secret_value(),
        }
        done = subprocess.run(
            [sys.executable, "-m", "bench.by_hand", self.venue_bucket, prefix],
            input=json.dumps(told),
            capture_output=True,
            text=True,
            check=True,
        )
        measured: dict[str, float] = json.loads(done.stdout)
        return measured

    def collect(self, symbols: list[str]) -> dict[str, float]:
        """Run `marketlake collect` to its end."""
        before, asked = self.processor_seconds(), answered(self.root)
        began = time.monotonic()
        arguments = ["collect", "--venue", "binance", "--market", "spot", "--type", "klines"]
        process = self.deployed.start(*arguments, *(f"--symbol={symbol}" for symbol in symbols), "--json")
        own = psutil.Process(process.pid)
        used = resident = 0.0
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess), own.oneshot():
                used, resident = _used(own), max(resident, own.memory_info().rss / 2**20)
            time.sleep(0.05)
        wall = time.monotonic() - began
        out, err = process.communicate()
        if process.returncode:
            raise SystemExit(f"{out}\n{err}")
        summary = json.loads(out)
        after = self.processor_seconds()
        spent = {name: after[name] - before[name] for name in after}
        requests = answered(self.root) - asked
        first, last = self._tenths(summary["batch_id"])
        return {
            "first_tenth_s": first,
            "last_tenth_s": last,
            "command_mib": resident,
            "worker_mib": max(map(_peak_mib, self.deployed.worker.family())),
            **{f"requests {name}": count for name, count in requests.items()},
            "files": summary["copied"],
            "rows": summary["rows_written"],
            "wall_s": wall,
            "cpu_s": used + spent["collection-worker"],
            **{f"cpu_s of {name}": seconds for name, seconds in {"command": used, **spent}.items()},
        }

    def _tenths(self, batch: str) -> tuple[float, float]:
        """How long the first and the last tenth of the files took to come into bronze."""
        with psycopg.connect(self.deployed.settings.database.dsn) as connection:
            rows = connection.execute(
                "select extract(epoch from collected_at) from ledger where batch_id = %s order by collected_at",
                [batch],
            ).fetchall()
            began = connection.execute(
                "select extract(epoch from min(dispatched_at)) from task where batch_id = %s", [batch]
            ).fetchone()
        moments = [float(moment) for (moment,) in rows]
        tenth = len(moments) // 10
        if not tenth or began is None:
            return 0.0, 0.0
        return moments[tenth - 1] - float(began[0]), moments[-1] - moments[-1 - tenth]

    def processor_seconds(self) -> dict[str, float]:
        """What each server, with all that it started, has used so far."""
        return {name: _used(psutil.Process(server.process.pid)) for name, server in self.servers.items()}


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut items into lists of that size."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


def _peak_mib(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _used(process: psutil.Process) -> float:
    """Processor seconds of a process, its children that live and those that have ended."""
    try:
        times = process.cpu_times()
        ended = times.children_user + times.children_system
        return times.user + times.system + ended + sum(map(_used, process.children()))
    except psutil.NoSuchProcess:
        return 0.0


@contextmanager
def platform() -> Iterator[Platform]:
    """Start a platform; it is gone afterwards."""
    with ExitStack() as running:
        folder = running.enter_context(servers.server_folder())
        database = running.enter_context(servers.postgres(folder))
        store, store_settings = running.enter_context(servers.minio(folder))
        broker, bus = running.enter_context(servers.kafka(folder))
        engine, engine_settings = running.enter_context(
            servers.prefect(folder, database.create_database("prefect"))
        )
        settings = Settings(
            environment="bench",
            object_store=store_settings,
            event_bus=bus,
            database=database.create_database("marketlake"),
            workflow_engine=engine_settings,
        )
        there = running.enter_context(deployed(settings, folder, "bench"))
        yield Platform(
            there,
            {
                "database": database.server,
                "object-store": store,
                "event-bus": broker,
                "workflow-engine": engine,
                "collection-worker": there.worker,
            },
            store_settings,
        )


def run() -> None:
    """Collect a thousand files both ways, and print what each costs."""
    _compared(SYMBOLS, DAYS)


def run_many() -> None:
    """Collect twenty thousand files both ways, and print what each costs."""
    _compared(MANY_SYMBOLS, MANY_DAYS)


def _compared(symbols: int, days: int) -> None:
    with platform() as there:
        files = there.publish(symbols, days, prefix="T")
        there.publish(1, 1, prefix="WARM")
        there.collect(["WARM0000USDT"])
        peer = there.by_hand("T")
        names = [f"T{number:04}USDT" for number in range(symbols)]
        ours = there.collect(names)
        if not ours["files"] == peer["files"] == files or ours["rows"] != peer["rows"]:
            raise SystemExit(f"not all came in: {ours}, {peer}")
        print(f"{files} daily files of 1m bars, {ours['rows']:,} rows, from the venue to silver")
        _line("by hand (up to Parquet), wall", peer["wall_s"], "s")
        _line("marketlake collect (up to silver), wall", ours["wall_s"], "s", peer["wall_s"])
        _line("  the first tenth of the files, up to bronze", ours["first_tenth_s"], "s")
        _line("  the last tenth", ours["last_tenth_s"], "s")
        _line("by hand, processor time a file", 1000 * peer["cpu_s"] / files, "ms")
        _line(
            "marketlake, processor time a file",
            1000 * ours["cpu_s"] / files,
            "ms",
            1000 * peer["cpu_s"] / files,
        )
        for name, seconds in ours.items():
            if name.startswith("cpu_s of "):
                _line(f"  {name.removeprefix('cpu_s of ')}", seconds, "s")
        print("requests a file, to the venue and to our own store, which are one server here")
        for name, count in sorted(ours.items()):
            if name.startswith("requests ") and count >= files / 1000:
                _line(f"  {name.removeprefix('requests ')}", count / files, "")
        _line("peak resident, worker", ours["worker_mib"], "MiB")
        _line("peak resident, command", ours["command_mib"], "MiB")
        again = there.collect(names)
        _line("collected again, nothing new, wall", again["wall_s"], "s")


def _line(what: str, value: float, unit: str, peer: float | None = None) -> None:
    ratio = f"  {value / peer:.2f} x the peer" if peer else ""
    print(f"{what:<60} {value:>10.2f} {unit:<3}{ratio}", flush=True)
