"""`down` leaves nothing: no process, port or file. With DATA=keep, the data and nothing else."""

import socket
from urllib.parse import urlsplit

from tests.stack.live import NAME, LiveStack
from tests.stack.test_3_kills import counts


def test_data_that_is_kept_is_there_again_after_the_next_up(stack: LiveStack) -> None:
    before = counts(stack)
    stack.make("down", "--data", "keep")
    assert stack.processes() == []
    assert {path.name for path in stack.folder.iterdir()} == {"data"}
    stack.make("up", "--no-collect")
    stack.wait_until_healthy()
    assert counts(stack) == before


def test_nothing_stays(stack: LiveStack) -> None:
    addresses = {service.target or service.address for service in stack.settings.services} - {None}
    stack.make("down")
    assert stack.processes() == []
    for address in addresses:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        with socket.socket() as probe:
            assert probe.connect_ex((parts.hostname, parts.port)) != 0, f"{address} still answers"
    assert not stack.folder.exists()
    assert not stack.workspace.state_file(NAME).exists()
    assert stack.timings["down"] < 120
