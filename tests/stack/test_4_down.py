"""`down` leaves nothing: no process, port or file. With DATA=keep, the data and nothing else."""

from tests.conformance.ending import EndingPromises


class TestEnding(EndingPromises):
    """On the host."""
