"""kill -9 anywhere: the next run completes, and no row is lost or doubled."""

from tests.conformance.change import KilledUpPromises
from tests.conformance.crashes import AftermathPromises, CrashPromises


class TestCrashes(CrashPromises):
    """On the host."""


class TestKilledUp(KilledUpPromises):
    """On the host."""


class TestAftermath(AftermathPromises):
    """On the host."""
