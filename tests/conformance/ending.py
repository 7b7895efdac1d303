"""`down` leaves nothing; with DATA=keep, the data and nothing else."""

import socket
from urllib.parse import urlsplit

from tests.conformance.holdings import counts
from tests.conformance.platform import NAME, Platform


class EndingPromises:
    """How a platform goes; the last tests of a target."""

    def test_data_that_is_kept_is_there_again_after_the_next_up(self, platform: Platform) -> None:
        before = counts(platform)
        platform.make("down", "--data", "keep")
        assert platform.remains() == set()
        assert platform.has_data()
        platform.make("up", "--no-collect")
        platform.wait_until_healthy()
        assert counts(platform) == before

    def test_nothing_stays(self, platform: Platform) -> None:
        addresses = {service.target or service.address for service in platform.settings.services} - {None}
        platform.make("down")
        assert platform.remains() == set()
        assert not platform.has_data()
        for address in addresses:
            parts = urlsplit(address if "://" in address else f"tcp://{address}")
            with socket.socket() as probe:
                probe.settimeout(3)
                assert probe.connect_ex((parts.hostname, parts.port)) != 0, f"{address} still answers"
        assert not platform.folder.exists()
        assert not platform.workspace.state_file(NAME).exists()
        assert platform.timings["down"] < 120
