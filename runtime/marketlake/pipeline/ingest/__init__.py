"""From landing to bronze: the rows of archive files, typed, staged and committed."""

from marketlake.pipeline.ingest.bronze import Bronze, Ingested, LandedFile, bronze_shape, shape_of
from marketlake.pipeline.ingest.committer import Committer
from marketlake.pipeline.ingest.errors import (
    CorruptZipError,
    InflatedTooLargeError,
    MultipleMembersError,
    SchemaChangedError,
)
from marketlake.pipeline.ingest.zip_member import InflationLimits

__all__ = [
    "Bronze",
    "Committer",
    "CorruptZipError",
    "InflatedTooLargeError",
    "InflationLimits",
    "Ingested",
    "LandedFile",
    "MultipleMembersError",
    "SchemaChangedError",
    "bronze_shape",
    "shape_of",
]
