"""`down` leaves nothing in the cluster; with DATA=keep, the volumes and nothing else."""

from tests.conformance.ending import EndingPromises


class TestEnding(EndingPromises):
    """In a cluster."""
