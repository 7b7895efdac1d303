"""What a stack on this machine promises once it is up."""

import stat

import psutil
import testinfra

from tests.conformance.change import RepetitionPromises
from tests.conformance.collecting import CollectionPromises
from tests.conformance.crashes import Committed
from tests.conformance.holdings import counts, reissue_funding_rates, whole
from tests.conformance.secrecy import SecrecyPromises
from tests.conformance.services import ServicePromises
from tests.provisioning import s3
from tests.stack.live import LiveStack


class TestServices(ServicePromises):
    """On the host."""


class TestCollection(CollectionPromises):
    """On the host, which shows for all targets what a second collection does."""

    def test_make_up_as_a_whole_collects_nothing_twice(self, platform: LiveStack) -> None:
        before = Committed.of(platform)
        platform.make("up")
        after = Committed.of(platform)
        assert after.files - before.files == set()
        assert after.objects - before.objects == set(), sorted(before.objects)
        assert counts(platform) == whole()

    def test_a_file_that_comes_again_is_a_conflict_and_the_old_version_stays(
        self, platform: LiveStack, tmp_path
    ) -> None:
        key = reissue_funding_rates(platform, tmp_path)
        summary = platform.asked("collect", "--venue", "binance", "--type", "fundingRate")
        assert (summary["copied"], summary["failed"], summary["rows_written"]) == (1, 0, 90)
        assert counts(platform) == whole()
        (series,) = platform.asked("archive", "list", "--venue", "binance", "--type", "fundingRate")
        assert (series["collected"], series["reissued"]) == (1, 1)
        store = platform.settings.object_store
        landed = s3(store).list_object_versions(Bucket=store.landing_bucket, Prefix=f"binance/{key}")
        versions = landed["Versions"]
        assert len({version["ETag"] for version in versions}) == 2, versions


class TestSecrecy(SecrecyPromises):
    """On the host."""


class TestRepetition(RepetitionPromises):
    """On the host."""


def test_nothing_listens_beyond_loopback(platform: LiveStack) -> None:
    listening = {
        (process.name(), connection.laddr.ip, connection.laddr.port)
        for process in platform.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) >= 10, "the servers were not seen at all"
    assert {ip for _, ip, _ in listening} <= {"127.0.0.1", "::1"}, listening


def test_the_ports_of_the_platform_file_are_the_ones_that_listen(platform: LiveStack) -> None:
    host = testinfra.get_host("local://")
    for service in platform.settings.services:
        if service.target and service.health == "tcp":
            assert host.socket(f"tcp://{service.target}").is_listening, service.name


def test_the_outputs_name_loopback_addresses(platform: LiveStack) -> None:
    assert "127.0.0.1" in platform.pulumi("stack", "output", "--json").stdout


def test_no_file_of_the_stack_can_be_read_by_others(platform: LiveStack) -> None:
    """Others may pass through folders (PostgreSQL's account has to), but read no file."""
    looked_at = 0
    for name in ("services", "supervisor", "logs"):
        for path in (platform.folder / name).rglob("*"):
            if path.is_file():
                looked_at += 1
                assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
    assert looked_at > 10
    assert stat.S_IMODE((platform.folder / "platform.json").stat().st_mode) == 0o600
