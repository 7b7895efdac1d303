"""What a stack on this machine promises once it is up."""

import stat

import psutil
import testinfra

from tests.conformance.change import RepetitionPromises
from tests.conformance.collecting import CollectionPromises
from tests.conformance.secrecy import SecrecyPromises
from tests.conformance.services import ServicePromises
from tests.stack.live import LiveStack


class TestServices(ServicePromises):
    """On the host."""


class TestCollection(CollectionPromises):
    """On the host."""


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
