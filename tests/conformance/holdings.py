"""What the platform under test holds: the sample files' rows, and further files that a test publishes."""

import hashlib
import shutil
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from tests.conformance.platform import PROJECT, Platform

SERVICES = {
    "collection-worker",
    "database",
    "event-bus",
    "log-store",
    "metrics-store",
    "object-store",
    "telemetry-collector",
    "trace-store",
    "workflow-engine",
    "workflow-worker",
}
SILVER = {
    "silver.candles": 1440 + 1440 + 24,
    "silver.agg_trades": 105_280,
    "silver.funding_rates": 90,
}
"""Rows that the sample files become, by table."""
SAMPLES = PROJECT / "samples"
_KEYS = {
    "silver.candles": "(venue, market, symbol, price_kind, interval, open_time)",
    "silver.agg_trades": "(venue, market, symbol, agg_trade_id)",
    "silver.funding_rates": "(venue, market, symbol, funding_time)",
}
_SAMPLE_SYMBOLS = "('BTCUSDT', 'BTCUSD_PERP')"
DAYS = 12
"""Files that :func:`publish_trades` publishes unless its caller says otherwise."""
_ROWS, _FIRST = 60_000, date(2026, 5, 1)


def counts(platform: Platform) -> dict[str, tuple[int, int]]:
    """Rows and distinct keys of the samples' symbols in each silver table."""
    found = {}
    for table, key in _KEYS.items():
        query = (
            f"select count(*) as n, count(distinct {key}) as k from {table} where symbol in {_SAMPLE_SYMBOLS}"  # noqa: S608 - ours
        )
        row = platform.sql(query)[0]
        found[table] = (row["n"], row["k"])
    return found


def whole() -> dict[str, tuple[int, int]]:
    """The counts when no row is lost or doubled."""
    return {table: (rows, rows) for table, rows in SILVER.items()}


def publish_trades(
    platform: Platform, symbol: str, folder: Path, *, days: int = DAYS
) -> tuple[list[str], int]:
    """Publish days of trades under a symbol of their own: synthetic, after the sample file's rows.

    Returns:
        What selects them on the command line, and how many rows they have.
    """
    series = folder / "data/futures/um/daily/aggTrades" / symbol
    series.mkdir(parents=True)
    for day in range(days):
        today = _FIRST + timedelta(days=day)
        start = int(datetime(today.year, today.month, today.day, tzinfo=UTC).timestamp() * 1000)
        lines = ["agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"]
        for row in range(_ROWS):
            trade = day * _ROWS + row
            price, quantity, maker = 100 + row % 97, 1 + row % 7, "true" if row % 2 else "false"
            lines.append(f"{trade},{price}.5,{quantity}.0,{trade},{trade},{start + row},{maker}")
        name = f"{symbol}-aggTrades-{today}"
        packed = series / f"{name}.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}.csv", "\n".join(lines) + "\n")
        _write_sidecar(packed)
    platform.marketlake("venue", "publish", str(folder))
    selection = ["--venue", "binance", "--market", "um", "--type", "aggTrades", "--symbol", symbol]
    return selection, days * _ROWS


def rows_of(platform: Platform, symbol: str) -> tuple[int, int]:
    """Rows and distinct keys of a symbol that :func:`publish_trades` published."""
    (found,) = platform.sql(
        f"select count(*) as n, count(distinct agg_trade_id) as k from silver.agg_trades where symbol = '{symbol}'"  # noqa: S608 - ours
    )
    return found["n"], found["k"]


def reissue_funding_rates(platform: Platform, folder: Path) -> str:
    """Publish the sample file of funding rates again: the same rows, another checksum.

    Returns:
        Its key.
    """
    key = "data/futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2026-04.zip"
    packed = folder / key
    packed.parent.mkdir(parents=True)
    shutil.copy(SAMPLES / key, packed)
    with packed.open("ab") as file:
        file.write(b"\0" * 10)
    _write_sidecar(packed)
    platform.marketlake("venue", "publish", str(folder))
    return key


def _write_sidecar(packed: Path) -> None:
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    packed.with_name(f"{packed.name}.CHECKSUM").write_text(f"{digest}  {packed.name}\n")
