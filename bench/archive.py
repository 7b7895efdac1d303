"""A synthetic archive of daily 1m bars: the venue's key layout, real zips and checksum files, made-up prices."""

import hashlib
import io
import random
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial

FIRST_DAY = date(2024, 3, 1)
_MINUTES = 1440
_SEED = 11


def archive(symbols: int, days: int, *, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield keys and bodies of so many files, each followed by its checksum file."""
    with ProcessPoolExecutor() as pool:
        names = [f"{prefix}{number:04}USDT" for number in range(symbols)]
        for files in pool.map(partial(_symbol, days=days), names):
            yield from files


def _symbol(symbol: str, *, days: int) -> list[tuple[str, bytes]]:
    generator = random.Random(f"{_SEED} {symbol}")  # noqa: S311 - prices, no secrets
    price = generator.uniform(1, 1000)
    found: list[tuple[str, bytes]] = []
    for offset in range(days):
        day = FIRST_DAY + timedelta(days=offset)
        text, price = _bars(generator, day, price)
        name = f"{symbol}-1m-{day.isoformat()}"
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr(f"{name}.csv", text)
        key = f"data/spot/daily/klines/{symbol}/1m/{name}.zip"
        digest = hashlib.sha256(body.getvalue()).hexdigest()
        found += [(key, body.getvalue()), (f"{key}.CHECKSUM", f"{digest}  {name}.zip\n".encode())]
    return found


def _bars(generator: random.Random, day: date, price: float) -> tuple[str, float]:
    midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    rows = []
    for minute in range(_MINUTES):
        begins = midnight + minute * 60_000
        moved = price * (1 + generator.gauss(0, 0.001))
        high, low = max(price, moved) * 1.0001, min(price, moved) * 0.9999
        volume, count = generator.random() * 50, generator.randint(1, 900)
        rows.append(
            f"{begins},{price:.8f},{high:.8f},{low:.8f},{moved:.8f},{volume:.8f},{begins + 59_999},"
            f"{volume * moved:.8f},{count},{volume / 2:.8f},{volume * moved / 2:.8f},0\n"
        )
        price = moved
    return "".join(rows), price
