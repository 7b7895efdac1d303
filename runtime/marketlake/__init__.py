"""The runtime of a market-data lake: discover, collect, refine and query exchange archives."""

__version__ = "0.1.0"
