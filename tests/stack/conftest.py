import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.live import LiveStack

# The files of this folder run in the order of their names: up, drift, kills, down.


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/stack" in str(item.path):
            item.add_marker(pytest.mark.stack)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def stack() -> Iterator[LiveStack]:
    """The stack, up and with the samples collected; destroyed at the end, whatever happened."""
    # Short, since a UNIX socket lies below it, and open to traversal: PostgreSQL drops root's rights.
    home = Path(tempfile.mkdtemp(prefix="mlk-"))
    home.chmod(0o711)
    live = LiveStack(home)
    live.config_file.write_text("config:\n  marketlake:target: host\n")
    try:
        live.make("up")
        yield live
    finally:
        if live.folder.exists() or live.processes():
            live.make("down", check=False)
        for process in live.processes():
            process.kill()
        live.remove()
