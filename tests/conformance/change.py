"""What was declared is there, what was changed behind Pulumi's back is mended, and a killed `up` is completed."""

import os
import signal
import time
from typing import ClassVar

from tests.conformance.platform import Platform
from tests.suite.shared import alone


class RepetitionPromises:
    """An unchanged program changes nothing."""

    no_change_s: ClassVar[float] = 60
    """Seconds that it may take to find that out."""

    def test_a_second_up_of_plain_pulumi_changes_nothing(self, platform: Platform) -> None:
        with alone():
            summary = platform.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes").stdout
        assert "unchanged" in summary
        assert not any(word in summary for word in ("created", "updated", "replaced", "deleted"))
        took = platform.timings["pulumi up"]
        assert took < self.no_change_s, f"{took:.0f} s for nothing"

    def test_what_is_deployed_keeps_to_the_policies(self, platform: Platform) -> None:
        told = platform.make("policy").stdout
        assert "checking the policies over" in told
        assert "mandatory" not in told, told


class DriftPromises:
    """What somebody changed is seen, and mended."""

    def test_what_was_removed_or_changed_is_seen_and_mended(self, platform: Platform) -> None:
        tampered = platform.tamper()
        seen = platform.pulumi("preview", "--refresh", "--diff").stdout
        assert [name for name in tampered if name not in seen] == []
        platform.make("up", "--no-collect")
        assert [name for name, mended in tampered.items() if not mended()] == []
        platform.wait_until_healthy()
        platform.pulumi("preview", "--expect-no-changes")


class KilledUpPromises:
    """An `up` that was killed half-way is completed by the next."""

    def test_up_killed_in_the_middle_is_completed_by_the_next(self, platform: Platform) -> None:
        platform.configure(collection={"workers": 3}, telemetry={"logsRetentionDays": 13})
        up = platform.start("up", "--no-collect")
        platform.wait_until_locked(up)
        time.sleep(2)
        os.killpg(up.pid, signal.SIGKILL)
        up.wait()
        platform.make("up", "--no-collect")
        platform.wait_until_healthy()
        platform.pulumi("preview", "--expect-no-changes")
