"""What was declared is there, what was changed behind Pulumi's back is mended, and a killed `up` is completed."""

import os
import signal
import time

import pytest
from confluent_kafka.admin import AdminClient
from marketlake.infrastructure.bus.connection import client_configuration

from stacks.policing import why_no_policies
from tests.conformance.holdings import counts, whole
from tests.conformance.platform import NAME, Platform


class RepetitionPromises:
    """An unchanged program changes nothing."""

    def test_a_second_up_changes_nothing_and_plain_pulumi_agrees(self, platform: Platform) -> None:
        platform.pulumi("preview", "--expect-no-changes")
        summary = platform.pulumi("up", "--yes", "--skip-preview").stdout
        assert "unchanged" in summary
        assert not any(word in summary for word in ("created", "updated", "replaced", "deleted"))
        took = platform.timings["pulumi up"]
        assert took < 60, f"{took:.0f} s for nothing"

    def test_what_is_deployed_keeps_to_the_policies(self, platform: Platform) -> None:
        if why := why_no_policies():
            pytest.skip(f"policies do not run here: {why}")
        told = platform.make("policy").stdout
        assert "checking the policies over" in told
        assert "mandatory" not in told, told


class DriftPromises:
    """What somebody changed is seen, and mended."""

    def test_a_removed_topic_is_seen_and_mended(self, platform: Platform) -> None:
        bus = platform.settings.event_bus
        admin = AdminClient(client_configuration(bus, client_id="drift"))
        admin.delete_topics([bus.dead_letters_topic])[bus.dead_letters_topic].result(30)
        seen = platform.pulumi("preview", "--refresh", "--diff").stdout
        assert "dead-letters" in seen
        platform.make("up", "--no-collect")
        assert bus.dead_letters_topic in admin.list_topics(timeout=10).topics
        platform.pulumi("preview", "--expect-no-changes")


class KilledUpPromises:
    """An `up` that was killed half-way is completed by the next."""

    def test_up_killed_in_the_middle_is_completed_by_the_next(self, platform: Platform) -> None:
        platform.configure(collection={"workers": 3}, telemetry={"logsRetentionDays": 13})
        up = platform.start("up", "--no-collect")
        deadline = time.monotonic() + 120
        locks = platform.workspace.lock_folder(NAME)
        while not (locks.is_dir() and any(locks.iterdir())):
            assert time.monotonic() < deadline, "up never took the lock"
            assert up.poll() is None, "up ended before it could be killed"
            time.sleep(0.05)
        time.sleep(2)
        os.killpg(up.pid, signal.SIGKILL)
        up.wait()
        platform.make("up", "--no-collect")
        platform.wait_until_healthy()
        platform.pulumi("preview", "--expect-no-changes")
        assert counts(platform) == whole()
