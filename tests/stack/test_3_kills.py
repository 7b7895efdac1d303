"""kill -9 anywhere: the next run completes, and no row is lost or doubled."""

from tests.conformance.change import KilledUpPromises
from tests.conformance.crashes import AftermathPromises, CrashPromises
from tests.conformance.holdings import SERVICES
from tests.stack.live import LiveStack


class TestCrashes(CrashPromises):
    """On the host."""


def test_a_killed_supervisor_is_brought_back_by_up(platform: LiveStack) -> None:
    supervisor = next(
        process for process in platform.processes() if "supervisord" in " ".join(process.cmdline())
    )
    supervisor.kill()
    platform.make("up", "--no-collect")
    platform.wait_until_healthy()
    for name in SERVICES - {"collection-worker"}:
        own = platform.of_service(name)
        pids = {process.pid for process in own}
        mains = [process for process in own if process.ppid() not in pids]
        assert len(mains) == 1, f"{name} runs twice: an orphan was left beside the new one"


class TestKilledUp(KilledUpPromises):
    """On the host."""


class TestAftermath(AftermathPromises):
    """On the host."""
