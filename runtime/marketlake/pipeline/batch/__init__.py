"""From bronze to silver, period by period."""

from marketlake.pipeline.batch.silver import (
    GAPS,
    Gap,
    Refined,
    refine,
    refine_many,
    refine_series,
)
from marketlake.pipeline.batch.silver_files import silver_shape

__all__ = [
    "GAPS",
    "Gap",
    "Refined",
    "refine",
    "refine_many",
    "refine_series",
    "silver_shape",
]
