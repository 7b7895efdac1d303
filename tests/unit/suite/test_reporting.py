"""What a test printed reaches the run from a worker of pytest-xdist, whatever it is."""

from tests.conftest import encodable


def test_what_utf_8_cannot_carry_is_escaped_and_all_else_is_as_it_was() -> None:
    report = {"sections": [("Captured log", "caf\u00e9 \ud800")], "duration": 0.5, "keywords": {"\udcff": 1}}
    sent = encodable(report)
    assert sent == {
        "sections": [("Captured log", "caf\u00e9 \\ud800")],
        "duration": 0.5,
        "keywords": {"\\udcff": 1},
    }
