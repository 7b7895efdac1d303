"""How Binance's archive spells its object keys.

``data/{market path}/{frequency}/{type}/{SYMBOL}/[{interval}/]{SYMBOL}-{interval|type}-{YYYY-MM[-DD]}.zip``,
with the irregularities of the public bucket: older monthly spot files whose key begins with a slash, a month
that was published unpadded (``2020-8``), and UM liquidation snapshots that moved to ``data3/``.
"""

import calendar
import re
from datetime import date

from marketlake.domain.archive import Frequency
from marketlake.domain.venue import KeyFields

MARKET_PATHS = {"spot": "spot", "um": "futures/um", "cm": "futures/cm", "option": "option"}
SIDECAR_SUFFIX = ".CHECKSUM"
MOVED_SNAPSHOTS = "data3/liquidationSnapshot/"
"""Where UM liquidation snapshots were last seen; the folders below it vary."""

_MARKETS = {path: market for market, path in MARKET_PATHS.items()}
_KEY = re.compile(
    r"/?data/(?P<path>spot|futures/um|futures/cm|option)/(?P<frequency>daily|monthly)/(?P<type>[A-Za-z]+)/"
    r"(?P<symbol>[^/.][^/]*)/(?:(?P<interval>[^/]+)/)?(?P<name>[^/]+)\.zip"
)
_MOVED = re.compile(
    re.escape(MOVED_SNAPSHOTS)
    + r"(?:[^/]+/)*(?P<symbol>[^/.][^/]*)-liquidationSnapshot-(?P<period>\d{4}-\d\d-\d\d)\.zip"
)
_PERIOD = re.compile(r"(\d{4})-(\d{1,2})(?:-(\d\d))?")


def parse(key: str) -> KeyFields | None:
    """Return the fields of an archive file's key, or None for sidecars, staging files and unknown layouts."""
    if moved := _MOVED.fullmatch(key):
        span = _span(moved["period"], Frequency.DAILY)
        return span and KeyFields(
            market="um",
            data_type="liquidationSnapshot",
            symbol=moved["symbol"],
            interval=None,
            frequency=Frequency.DAILY,
            start=span[0],
            end=span[1],
        )
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    stem = f"{match['symbol']}-{match['interval'] or match['type']}-"
    frequency = Frequency(match["frequency"])
    span = _span(match["name"].removeprefix(stem), frequency) if match["name"].startswith(stem) else None
    return span and KeyFields(
        market=_MARKETS[match["path"]],
        data_type=match["type"],
        symbol=match["symbol"],
        interval=match["interval"],
        frequency=frequency,
        start=span[0],
        end=span[1],
    )


def build(fields: KeyFields) -> str:
    """Return the regular key of a file: where a new one will be published."""
    return f"{folder(fields)}{stem(fields.symbol, fields.interval, fields.data_type)}{period(fields)}.zip"


def folder(fields: KeyFields) -> str:
    """Return the prefix, with final slash, that holds the files of a series."""
    series = (fields.data_type, fields.symbol, fields.interval)
    return "/".join(["data", MARKET_PATHS[fields.market], fields.frequency, *filter(None, series)]) + "/"


def stem(symbol: str, interval: str | None, data_type: str) -> str:
    """Return what every file name of a series begins with."""
    return f"{symbol}-{interval or data_type}-"


def period(fields: KeyFields) -> str:
    """Return the day or month as a file name spells it."""
    return fields.start.isoformat() if fields.frequency is Frequency.DAILY else fields.start.isoformat()[:7]


def _span(text: str, frequency: Frequency) -> tuple[date, date] | None:
    match = _PERIOD.fullmatch(text)
    if match is None or (match[3] is None) != (frequency is Frequency.MONTHLY):
        return None
    year, month = int(match[1]), int(match[2])
    try:
        start = date(year, month, int(match[3] or 1))
    except ValueError:
        return None
    last = start.day if frequency is Frequency.DAILY else calendar.monthrange(year, month)[1]
    return start, start.replace(day=last)
