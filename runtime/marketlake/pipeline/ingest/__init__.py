"""From landing to bronze: the rows of each file, typed."""

from marketlake.pipeline.ingest.bronze import Ingested, bronze_shape, ingest
from marketlake.pipeline.ingest.errors import (
    CorruptZipError,
    InflatedTooLargeError,
    MultipleMembersError,
    SchemaChangedError,
)
from marketlake.pipeline.ingest.zip_member import InflationLimits

__all__ = [
    "CorruptZipError",
    "InflatedTooLargeError",
    "InflationLimits",
    "Ingested",
    "MultipleMembersError",
    "SchemaChangedError",
    "bronze_shape",
    "ingest",
]
