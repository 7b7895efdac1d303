"""Rows that did not become data, each with the reason.

One table, ``quarantine``, for all data types. A scope is what was processed as a whole, a source file on its
way to bronze or a period on its way to silver, so that processing it again replaces its rows here, too.
"""

from datetime import UTC, datetime

import polars as pl
import pyarrow as pa

from marketlake.processing.delta import Scope, TableShape, replace, write_file
from marketlake.sync.stores import Lake

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
    constants=("stage", "scope"),
)


def quarantine(lake: Lake, stage: str, scope: str, bad: pl.DataFrame, about: dict[str, str | None]) -> None:
    """Make these the quarantined rows of a scope, instead of those it had.

    Args:
        lake: where the table is.
        stage: ``bronze`` or ``silver``.
        scope: names the source file or the period.
        bad: `source_key`, `row_number`, `raw`, `reason`; without rows if all is well.
        about: `venue`, `market`, `data_type`, `symbol`, `interval`.
    """
    part = Scope(f"{stage}/{scope}", {"stage": stage, "scope": scope})
    now = datetime.now(UTC)
    rows = bad.with_columns(
        *(pl.lit(value, pl.String()).alias(name) for name, value in about.items()),
        quarantined_at=pl.lit(now, pl.Datetime("us", "UTC")),
    ).select(QUARANTINE.columns.names)
    file = write_file(lake, QUARANTINE, part, [rows])
    replace(lake, QUARANTINE, [part], lambda _: [file] if file else [])
