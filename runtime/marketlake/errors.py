"""The root of the runtime's errors.

Each package declares the errors that it raises, below this class. A message says what happened, with which value,
and what to do next.
"""


class MarketlakeError(Exception):
    """Something that the runtime foresees went wrong."""

    code: str = "error"
    """Stable: it is stored in PostgreSQL, put on dead letters and counted in metrics."""
    transient: bool = False
    """Whether the same request may succeed later without anybody doing anything."""


def is_transient(error: Exception) -> bool:
    """Return whether trying again may help."""
    return isinstance(error, MarketlakeError) and error.transient
