import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.suite.shared import beside

# The promises are no test modules by name, but their assertions are to tell what they saw, too.
pytest.register_assert_rewrite("tests.conformance")

# Other tests take the processor meanwhile: how long one example takes says nothing about the code.
settings.register_profile("beside-others", deadline=None)
settings.load_profile("beside-others")

# A shell's background job ignores SIGINT, and so does all that it starts: Ctrl-C would reach no test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    chaos = parser.getgroup("chaos", "kills in the middle of collections, on a platform")
    chaos.addoption(
        "--chaos-rounds", type=int, default=1, help="collections in the middle of which is killed"
    )
    chaos.addoption("--chaos-kills", type=int, default=3, help="kills and pauses under continuous load")
    chaos.addoption(
        "--chaos-schedules", type=int, default=500, help="schedules of stagings, commits and crashes"
    )
    chaos.addoption("--chaos-seed", type=int, default=0, help="from which they are drawn")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Wait while another part of the run times something; before the test's own time begins."""
    with beside():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Iterator[Any]:
    """A worker of pytest-xdist sends its reports in UTF-8, which a lone surrogate in what a test printed is not."""
    return encodable((yield))


def encodable(value: Any) -> Any:
    """The same data with what UTF-8 cannot carry as escapes."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {encodable(key): encodable(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(map(encodable, value))
        case _:
            return value


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """What a test leaves in the place of a signal's handler would swallow the signals of all that follow."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    left = {number: signal.getsignal(number) for number in former}
    for number, handler in former.items():
        signal.signal(number, handler)
    assert left == former
