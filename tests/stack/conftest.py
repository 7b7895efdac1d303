from collections.abc import Iterator

import pytest

from tests.conformance import chaos
from tests.stack.live import LiveStack

# The files of this folder run in the order of their names: up, drift, kills, down.


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/stack" in str(item.path):
            item.add_marker(pytest.mark.stack)
            item.add_marker(pytest.mark.timeout(900))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chaos.draw(metafunc, LiveStack.in_the_middle)


@pytest.fixture(scope="session")
def platform() -> Iterator[LiveStack]:
    """The stack, up and with the samples collected; destroyed at the end, whatever happened."""
    stack = LiveStack.somewhere()
    try:
        yield stack.bring()
    finally:
        stack.discard()
