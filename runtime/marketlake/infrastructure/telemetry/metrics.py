"""The platform's metrics. Labels are few and bounded: venue, market, data type, outcome, error code."""

from functools import cache

from opentelemetry import metrics
from opentelemetry.metrics import Counter, Histogram


@cache
def files() -> Counter:
    """Files that came to an end; labels venue, market, data_type, outcome."""
    return _meter().create_counter("marketlake.files", unit="{file}", description="Files that came to an end")


@cache
def read_bytes() -> Counter:
    """Bytes read from venues; labels venue, market, data_type."""
    return _meter().create_counter("marketlake.read", unit="By", description="Bytes read from venues")


@cache
def rows() -> Counter:
    """Rows written to bronze or to quarantine; labels venue, market, data_type, layer."""
    return _meter().create_counter("marketlake.rows", unit="{row}", description="Rows written")


@cache
def retries() -> Counter:
    """Attempts that failed and were repeated; labels venue, code."""
    return _meter().create_counter("marketlake.retries", unit="{attempt}", description="Repeated attempts")


@cache
def failures() -> Counter:
    """Files that failed; labels venue, code."""
    return _meter().create_counter("marketlake.failures", unit="{file}", description="Files that failed")


@cache
def duration() -> Histogram:
    """Seconds from the start of a task to its end; labels venue, market, data_type."""
    return _meter().create_histogram(
        "marketlake.task.duration", unit="s", description="Time to bring in and stage the files of a task"
    )


def _meter() -> metrics.Meter:
    return metrics.get_meter("marketlake")
