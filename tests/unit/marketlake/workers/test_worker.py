import ctypes

import pytest
from marketlake.workers import worker


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
