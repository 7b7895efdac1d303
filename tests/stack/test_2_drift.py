"""What was changed behind Pulumi's back is seen, and mended."""

from tests.conformance.change import DriftPromises


class TestDrift(DriftPromises):
    """On the host."""
