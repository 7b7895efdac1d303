"""kill -9 anywhere: the next run completes, and no row is lost or doubled."""

import hashlib
import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import psutil
import pytest

from components.supervision.layout import SERVICE_MARK
from tests.stack.live import MARKETLAKE, NAME, PROJECT, LiveStack
from tests.stack.test_1_up import SERVICES, SILVER

DAYS, ROWS, FIRST = 12, 60_000, date(2026, 5, 1)


def counts(stack: LiveStack) -> dict[str, tuple[int, int]]:
    """Rows and distinct keys of each silver table."""
    keys = {
        "silver.klines": "(venue, market, symbol, interval, open_time)",
        "silver.agg_trades": "(venue, market, symbol, agg_trade_id)",
        "silver.funding_rate": "(venue, market, symbol, calc_time)",
    }
    found = {}
    for table, key in keys.items():
        row = stack.sql(f"select count(*) as n, count(distinct {key}) as k from {table}")[0]  # noqa: S608 - ours
        found[table] = (row["n"], row["k"])
    return found


def whole() -> dict[str, tuple[int, int]]:
    return {table: (rows, rows) for table, rows in SILVER.items()}


def of_service(stack: LiveStack, name: str) -> list[psutil.Process]:
    return [process for process in stack.processes() if process.environ().get(SERVICE_MARK) == name]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_killed_service_comes_back_and_the_next_collection_completes(stack: LiveStack, name: str) -> None:
    killed = of_service(stack, name)
    assert killed, f"no process carries the mark of {name}"
    for process in killed:
        process.kill()
    psutil.wait_procs(killed, timeout=10)
    stack.wait_until_healthy()
    stack.marketlake("collect", "--venue", "binance", "--all")
    assert counts(stack) == whole()


def test_a_killed_supervisor_is_brought_back_by_up(stack: LiveStack) -> None:
    supervisor = next(
        process for process in stack.processes() if "supervisord" in " ".join(process.cmdline())
    )
    supervisor.kill()
    stack.make("up", "--no-collect")
    stack.wait_until_healthy()
    for name in SERVICES - {"collection-worker"}:
        mains = [
            p for p in of_service(stack, name) if p.ppid() not in {q.pid for q in of_service(stack, name)}
        ]
        assert len(mains) == 1, f"{name} runs twice: an orphan was left beside the new one"
    assert counts(stack) == whole()


@pytest.fixture
def more_files(stack: LiveStack, tmp_path) -> Callable[[str], tuple[list[str], int]]:
    """Publishes days of trades under a symbol of their own: synthetic, after the sample file's rows."""

    def publish(symbol: str) -> tuple[list[str], int]:
        folder = tmp_path / "data/futures/um/daily/aggTrades" / symbol
        folder.mkdir(parents=True)
        rows = 0
        for day in range(DAYS):
            today = FIRST + timedelta(days=day)
            name = f"{symbol}-aggTrades-{today}"
            start = int(datetime(today.year, today.month, today.day, tzinfo=UTC).timestamp() * 1000)
            lines = ["agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"]
            for row in range(ROWS):
                trade = day * ROWS + row
                price, quantity, maker = 100 + row % 97, 1 + row % 7, "true" if row % 2 else "false"
                lines.append(f"{trade},{price}.5,{quantity}.0,{trade},{trade},{start + row},{maker}")
            packed = folder / f"{name}.zip"
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"{name}.csv", "\n".join(lines) + "\n")
            digest = hashlib.sha256(packed.read_bytes()).hexdigest()
            packed.with_name(f"{name}.zip.CHECKSUM").write_text(f"{digest}  {name}.zip\n")
            rows += ROWS
        stack.marketlake("venue", "publish", str(tmp_path))
        selection = ["--venue", "binance", "--market", "um", "--type", "aggTrades", "--symbol", symbol]
        return selection, rows

    return publish


@pytest.mark.parametrize("victim", ["collection-worker", "workflow-worker", "command"])
def test_killed_in_the_middle_of_a_collection(stack: LiveStack, victim: str, more_files) -> None:
    symbol = f"{victim.replace('-', '').upper()}USDT"
    selection, rows = more_files(symbol)
    argv = [MARKETLAKE, "--env", NAME, "collect", *selection, "--json"]
    with subprocess.Popen(
        argv, env=stack.variables, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        try:
            _wait_for_first_rows(stack, selection)
            for process in of_service(stack, victim):
                process.kill()
            if victim != "command":
                command.communicate(timeout=120)
        finally:
            command.kill()
    stack.wait_until_healthy()
    summary = json.loads(stack.marketlake("collect", *selection, "--json").stdout)
    assert summary["failed"] == 0
    of_symbol = f"from silver.agg_trades where symbol = '{symbol}'"
    found = stack.sql(f"select count(*) as n, count(distinct agg_trade_id) as k {of_symbol}")
    assert found == [{"n": rows, "k": rows}]


def test_up_killed_in_the_middle_is_completed_by_the_next(stack: LiveStack) -> None:
    stack.config_file.write_text(
        "config:\n  marketlake:target: host\n  marketlake:collection:\n    workers: 3\n"
        "  marketlake:telemetry:\n    logsRetentionDays: 13\n"
    )
    up = stack.start("up", "--no-collect")
    deadline = time.monotonic() + 120
    locks = stack.workspace.lock_folder(NAME)
    while not (locks.is_dir() and any(locks.iterdir())):
        assert time.monotonic() < deadline, "up never took the lock"
        assert up.poll() is None, "up ended before it could be killed"
        time.sleep(0.05)
    time.sleep(2)
    os.killpg(up.pid, signal.SIGKILL)
    up.wait()
    stack.make("up", "--no-collect")
    stack.wait_until_healthy()
    stack.pulumi("preview", "--expect-no-changes")
    assert counts(stack)["silver.klines"] == whole()["silver.klines"]


def _wait_for_first_rows(stack: LiveStack, selection: list[str]) -> None:
    deadline = time.monotonic() + 120
    while True:
        listed = stack.marketlake("archive", "list", *selection, "--json", check=False)
        if listed.returncode == 0 and any(series["collected"] for series in json.loads(listed.stdout)):
            return
        assert time.monotonic() < deadline, f"nothing was collected: {listed.stdout} {listed.stderr}"
        time.sleep(0.2)
