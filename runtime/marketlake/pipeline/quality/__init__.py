"""Gaps in a series, and the quarantine of rows that did not become data."""

from marketlake.pipeline.quality.gaps import (
    GAP_SCHEMA,
    GapFinder,
    missing_bars,
    missing_fundings,
    missing_ids,
)
from marketlake.pipeline.quality.quarantine import QUARANTINE, quarantine

__all__ = [
    "GAP_SCHEMA",
    "QUARANTINE",
    "GapFinder",
    "missing_bars",
    "missing_fundings",
    "missing_ids",
    "quarantine",
]
