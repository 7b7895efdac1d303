"""The catalogue's table: every archive file that was ever listed, one row for each (venue, key)."""

import pyarrow as pa

from marketlake.infrastructure.storage.delta import TableShape

CATALOGUE = TableShape(
    path="catalogue",
    columns=pa.schema(
        [
            ("interval", pa.string()),
            ("frequency", pa.string()),
            ("start", pa.date32()),
            ("end", pa.date32()),
            ("key", pa.string()),
            ("size", pa.int64()),
            ("etag", pa.string()),
            ("last_modified", pa.timestamp("us", "UTC")),
            ("sidecar_key", pa.string()),
            ("seen_at", pa.timestamp("us", "UTC")),
        ]
    ),
    labels=("venue", "market", "data_type", "symbol"),
)
