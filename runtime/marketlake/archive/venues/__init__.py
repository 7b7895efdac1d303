"""The venue plug-ins that come with the runtime."""

from marketlake.archive.venues.binance import Binance

__all__ = [
    "Binance",
]
