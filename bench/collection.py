"""What collecting many small files costs, beside the script that one would write by hand."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import obstore
import psutil
from marketlake.infrastructure.storage.stores import bucket_store
from marketlake.settings import Settings

from bench.archive import archive
from tests import servers
from tests.deployed import Deployed, deployed

SYMBOLS, DAYS = 40, 25
AT_ONCE = 32


@dataclass(frozen=True)
class Platform:
    """A platform on this machine, and its servers."""

    deployed: Deployed
    servers: dict[str, servers.Server]

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

            tasks = [asyncio.ensure_future(put(*item)) for item in archive(symbols, days, prefix=prefix)]
            await asyncio.gather(*tasks)
            return len(tasks) // 2

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
        before = self.processor_seconds()
        began = time.monotonic()
        arguments = ["collect", "--venue", "binance", "--market", "spot", "--type", "klines"]
        process = self.deployed.start(*arguments, *(f"--symbol={symbol}" for symbol in symbols), "--json")
        own = psutil.Process(process.pid)
        used = 0.0
        while process.poll() is None:
            with own.oneshot():
                used = _used(own)
            time.sleep(0.05)
        wall = time.monotonic() - began
        out, err = process.communicate()
        if process.returncode:
            raise SystemExit(f"{out}\n{err}")
        summary = json.loads(out)
        after = self.processor_seconds()
        spent = {name: after[name] - before[name] for name in after}
        return {
            "files": summary["copied"],
            "rows": summary["rows_written"],
            "wall_s": wall,
            "cpu_s": used + spent["collection-worker"],
            **{f"cpu_s of {name}": seconds for name, seconds in {"command": used, **spent}.items()},
        }

    def processor_seconds(self) -> dict[str, float]:
        """What each server, with all that it started, has used so far."""
        return {name: _used(psutil.Process(server.process.pid)) for name, server in self.servers.items()}


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
        )


def run() -> None:
    """Collect a thousand files both ways, and print what each costs."""
    with platform() as there:
        files = there.publish(SYMBOLS, DAYS, prefix="T")
        there.publish(1, 1, prefix="WARM")
        there.collect(["WARM0000USDT"])
        peer = there.by_hand("T")
        symbols = [f"T{number:04}USDT" for number in range(SYMBOLS)]
        ours = there.collect(symbols)
        if not ours["files"] == peer["files"] == files or ours["rows"] != peer["rows"]:
            raise SystemExit(f"not all came in: {ours}, {peer}")
        print(f"{files} daily files of 1m bars, {ours['rows']:,} rows, from the venue to silver")
        _line("by hand (up to Parquet), wall", peer["wall_s"], "s")
        _line("marketlake collect (up to silver), wall", ours["wall_s"], "s", peer["wall_s"])
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
        again = there.collect(symbols)
        _line("collected again, nothing new, wall", again["wall_s"], "s")


def _line(what: str, value: float, unit: str, peer: float | None = None) -> None:
    ratio = f"  {value / peer:.2f} x the peer" if peer else ""
    print(f"{what:<60} {value:>10.2f} {unit:<3}{ratio}", flush=True)
