"""Who times something is alone; who does not, waits at most that long."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.suite import shared
from tests.waiting import eventually

BESIDE = """
import sys
from pathlib import Path
from tests.suite.shared import beside
with beside():
    Path(sys.argv[1]).touch()
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of its own: the test itself has a share of no quiet in it."""
    monkeypatch.setattr(shared, "_held", [])
    monkeypatch.setenv(shared.VARIABLE, str(tmp_path))
    return tmp_path


def another_part(begun: Path) -> "subprocess.Popen[bytes]":
    """A test of another part, which runs until its input is closed."""
    return subprocess.Popen(
        [sys.executable, "-c", BESIDE, str(begun)], stdin=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )


def test_tests_of_other_parts_begin_when_the_timing_is_over(folder: Path) -> None:
    begun = folder / "begun"
    with shared.beside():
        with shared.alone():
            other = another_part(begun)
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(1.5)
            assert not begun.exists()
        eventually(begun.exists)
        other.communicate()
    assert other.returncode == 0


def test_a_timing_waits_for_the_tests_that_run(folder: Path) -> None:
    begun, ended = folder / "begun", folder / "ended"
    other = another_part(begun)
    eventually(begun.exists)
    code = (
        "import sys; from tests.suite.shared import *\nwith beside():\n with alone(): open(sys.argv[1], 'w')"
    )
    timing = subprocess.Popen([sys.executable, "-c", code, str(ended)], cwd=Path(__file__).parents[3])
    with pytest.raises(subprocess.TimeoutExpired):
        timing.wait(1.5)
    assert not ended.exists()
    other.communicate()
    assert timing.wait(20) == 0
    assert ended.exists()


def test_a_figure_is_known_to_the_parts_of_the_same_run(folder: Path) -> None:
    assert shared.published("first collection") is None
    shared.publish("first collection", 12.5)
    assert shared.published("first collection") == 12.5


def test_a_part_by_itself_waits_for_nobody_and_knows_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shared.VARIABLE, raising=False)
    shared.publish("first collection", 12.5)
    assert shared.published("first collection") is None
    with shared.beside(), shared.alone():
        pass
