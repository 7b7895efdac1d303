import ctypes
import threading
from functools import partial

import pytest
from marketlake.workers import worker
from marketlake.workers.worker import Companion, CompanionEndedError


class Library:
    """A C library that records what it is asked."""

    def __init__(self, asked: list[tuple[int, int]]) -> None:
        self._asked = asked

    def mallopt(self, option: int, value: int) -> int:
        self._asked.append((option, value))
        return 1


def test_threads_share_two_arenas(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library(asked))
    worker.limit_arenas()
    assert asked == [(-8, 2)]


@pytest.mark.parametrize("library", [object(), OSError("no such library")])
def test_another_c_library_is_left_as_it_is(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: object) -> object:
        if isinstance(library, OSError):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    worker.limit_arenas()


def until_told(ending: threading.Event) -> None:
    ending.wait(20)


def never(ending: threading.Event, done: threading.Event) -> None:
    done.wait(20)


def failing(ending: threading.Event) -> None:
    raise ZeroDivisionError


def returning(ending: threading.Event) -> None:
    pass


@pytest.mark.parametrize("companion", [failing, returning, partial(failing)])
def test_a_companion_that_ends_too_early_ends_the_worker(companion: Companion) -> None:
    stop = threading.Event()
    companions = worker._Companions([until_told, companion], stop)
    companions.start()
    assert stop.wait(10)
    assert companions.end() == 0
    name = "failing" if companion is not returning else "returning"
    with pytest.raises(CompanionEndedError, match=name) as raised:
        companions.raise_if_one_ended_early()
    assert isinstance(raised.value.__cause__, ZeroDivisionError) is (companion is not returning)


def test_companions_that_end_when_they_are_told_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "COMPANIONS_GRACE_S", 0.2)
    stop, done = threading.Event(), threading.Event()

    def failing_at_the_end(ending: threading.Event) -> None:
        ending.wait(20)
        raise ZeroDivisionError

    companions = worker._Companions([until_told, failing_at_the_end, partial(never, done=done)], stop)
    companions.start()
    assert companions.end() == 1
    companions.raise_if_one_ended_early()
    assert not stop.is_set()
    done.set()
