"""Reading properties that may lack anything."""

import pytest

from policies.rules.reading import UNKNOWN, at, differs, items_at, pairs_at, text_at, written


def test_nothing_lies_beyond_what_is_no_folder() -> None:
    assert at({"a": 1}, "a", "b") is None
    assert at({"a": [1]}, "a", 7) is None
    assert at({"a": "text"}, "a", 0) is None, "a text is no list of letters"
    assert list(items_at({"a": "text"}, "a")) == []
    assert list(pairs_at({"a": [1]}, "a")) == []
    assert text_at({"a": 1}, "a") == ""


def test_beyond_what_is_unknown_all_is_unknown() -> None:
    assert at({"a": UNKNOWN}, "a", "b", 0) is UNKNOWN
    assert not differs(UNKNOWN, True)
    assert repr(UNKNOWN) == "unknown"


@pytest.mark.parametrize(
    ("path", "text"), [(("a",), "a"), (("a", 0, "b"), "a[0].b"), (("a", "b.c"), "a.b.c"), ((), "")]
)
def test_paths_are_written_as_people_write_them(path: tuple[str | int, ...], text: str) -> None:
    assert written(*path) == text
