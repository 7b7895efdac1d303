"""Waiting for servers that start, and not waiting for an engine that is gone."""

import socket
import threading

import pytest

from components.providers import orphan, waiting
from components.providers.base import UnreachableError
from components.providers.waiting import NotReady, wait_for


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that only passes by sleeping; the pauses."""
    pauses: list[float] = []
    monkeypatch.setattr(waiting.time, "monotonic", lambda: sum(pauses))
    monkeypatch.setattr(waiting.time, "sleep", pauses.append)
    return pauses


def test_it_tries_again_with_growing_pauses_until_the_server_answers(clock: list[float]) -> None:
    answers = iter([NotReady("refused"), NotReady("refused"), NotReady("503")])

    def action() -> str:
        if signal := next(answers, None):
            raise signal
        return "there"

    assert wait_for(action, server="S", timeout_s=60) == "there"
    assert clock == pytest.approx([0.1, 0.16, 0.256])


def test_it_gives_up_in_time_and_says_what_to_do(clock: list[float]) -> None:
    def action() -> None:
        raise NotReady("connection refused")

    message = r"The store at x did not answer within 5 s \(connection refused\)\. Look at `marketlake status`"
    with pytest.raises(UnreachableError, match=message):
        wait_for(action, server="The store at x", timeout_s=5)
    assert sum(clock) <= 5
    assert max(clock) <= 2


def test_any_other_error_ends_the_waiting(clock: list[float]) -> None:
    def action() -> None:
        raise KeyError("defect")

    with pytest.raises(KeyError):
        wait_for(action, server="S", timeout_s=5)
    assert clock == []


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan, "_watching", threading.Event())
    monkeypatch.setattr(orphan, "POLL_S", 0.02)


@pytest.mark.usefixtures("unwatched")
def test_a_provider_ends_when_its_engine_is_gone_and_not_before() -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as engine:
        orphan.end_with_engine(["main.py", f"127.0.0.1:{engine.getsockname()[1]}"], end=ended.set)
        assert not ended.wait(0.3)
    assert ended.wait(5)


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize("arguments", [[], ["pytest"], ["pytest", "tests/x.py::test_y"], ["pytest", ":5"]])
def test_a_process_without_engine_is_not_watched(arguments: list[str]) -> None:
    ended = threading.Event()
    orphan.end_with_engine(arguments, end=ended.set)
    assert not ended.wait(0.1)
    assert not orphan._watching.is_set()


@pytest.mark.usefixtures("unwatched")
def test_one_watch_is_enough() -> None:
    ends: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as engine:
        arguments = ["main.py", f"127.0.0.1:{engine.getsockname()[1]}"]
        before = threading.active_count()
        orphan.end_with_engine(arguments, end=lambda: ends.append(1))
        orphan.end_with_engine(arguments, end=lambda: ends.append(2))
        assert threading.active_count() == before + 1


def test_an_engine_that_cannot_be_asked_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(orphan.socket, "create_connection", exhausted)
    assert orphan._answers(("127.0.0.1", 1))
