"""SQL over the lake's tables."""

from marketlake.pipeline.serving.query import SqlError, query, tables

__all__ = [
    "SqlError",
    "query",
    "tables",
]
