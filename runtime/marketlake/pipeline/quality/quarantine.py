"""Rows that did not become data, each with the reason.

One table, ``quarantine``, for all data types. A scope is what was processed as a whole, a source file on its
way to bronze or a period on its way to silver, so that processing it again replaces its rows here, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa

from marketlake.infrastructure.storage.delta import (
    DataFile,
    Scope,
    TableShape,
    replace_few,
    write_file,
)
from marketlake.infrastructure.storage.stores import Lake

QUARANTINE = TableShape(
    path="quarantine",
    columns=pa.schema(
        [
            ("venue", pa.string()),
            ("market", pa.string()),
            ("data_type", pa.string()),
            ("symbol", pa.string()),
            ("interval", pa.string()),
            ("source_key", pa.string()),
            ("row_number", pa.int64()),
            ("raw", pa.string()),
            ("reason", pa.string()),
            ("quarantined_at", pa.timestamp("us", "UTC")),
        ]
    ),
    labels=("stage", "scope"),
)


@dataclass(frozen=True, slots=True)
class BadRows:
    """The bad rows of one scope."""

    rows: pl.DataFrame
    """`source_key`, `row_number`, `raw`, `reason`; no rows where all is well."""
    about: Mapping[str, str | None]
    """`venue`, `market`, `data_type`, `symbol`, `interval`."""


def quarantine(lake: Lake, stage: str, bad: Mapping[str, BadRows]) -> None:
    """Replace the quarantined rows of some scopes.

    Args:
        lake: where the table is.
        stage: ``bronze`` or ``silver``.
        bad: by scope; it names the source file or the period.
    """
    at = pl.lit(datetime.now(UTC), pl.Datetime("us", "UTC")).alias("quarantined_at")
    files: dict[Scope, DataFile] = {}
    scopes = {name: Scope(f"{stage}/{name}", {"stage": stage, "scope": name}) for name in bad}
    for name, found in bad.items():
        if not found.rows.is_empty():
            told = [pl.lit(value, pl.String()).alias(key) for key, value in found.about.items()]
            rows = found.rows.with_columns(*told, at).select(QUARANTINE.columns.names)
            if file := write_file(lake, QUARANTINE, scopes[name], [rows]):
                files[scopes[name]] = file
    replace_few(lake, QUARANTINE, scopes.values(), files)
