"""The runner, on a toy repository whose `make .venv/.synced` costs nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.breakages.__main__ import main

MAKEFILE = f"""\
.venv/.synced:
\t@mkdir -p .venv/bin && printf '#!/bin/sh\\nexec {sys.executable} "$$@"\\n' > .venv/bin/python
\t@chmod +x .venv/bin/python && touch $@
"""
TESTS = {
    "test_holds.py": "from toy import WHOLE\ndef test_holds(): assert WHOLE\n",
    "test_lax.py": "from toy import WHOLE\ndef test_lax(): assert WHOLE in (True, False)\n",
    "test_fails.py": "def test_fails(): assert False\n",
    "test_skips.py": "import pytest\ndef test_skips(): pytest.skip('no servers here')\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "tests").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / ".gitignore").write_text(".venv/\n")
    (folder / "toy.py").write_text("WHOLE = True\n")
    for name, text in TESTS.items():
        (folder / "tests" / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies of the checkout lie while they are tried, by a pytest that starts fast."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    folder = tmp_path / "trees"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def breakage(
    folder: Path, number: int, test: str, *, old: str = "WHOLE = True", new: str = "WHOLE = False"
) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{number:02}-it-is-whole.patch").write_text(
        f"Promise: It is whole ({number}).\nRed: tests/{test}\n\n"
        f"diff --git a/toy.py b/toy.py\n--- a/toy.py\n+++ b/toy.py\n@@ -1 +1 @@\n-{old}\n+{new}\n"
    )


def run(checkout: Path, *arguments: str) -> int:
    return main(arguments, checkout=checkout, folder=checkout.parent / "patches")


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def test_a_test_that_notices_is_a_promise_that_is_held(
    checkout: Path, trees: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breakage(checkout.parent / "patches", 1, "test_holds.py::test_holds")
    before = contents(checkout)
    assert run(checkout) == 0
    said = capsys.readouterr().out
    assert "[ 1/1] 01 red " in said
    assert "It is whole (1)." in said
    assert said.endswith("\n1 red\n")
    assert contents(checkout) == before
    assert not list(trees.iterdir())


@pytest.mark.parametrize(
    ("test", "verdict", "detail", "code"),
    [
        ("test_lax.py", "GREEN", "1 passed", 1),
        ("test_fails.py", "red before", "FAILED tests/test_fails.py::test_fails", 1),
        ("test_skips.py", "cannot run here", "no servers here", 0),
        ("test_holds.py::test_gone", "red before", "not found", 1),
    ],
)
def test_a_promise_that_is_not_shown_to_be_held_is_told_with_what_pytest_said(
    checkout: Path, capsys: pytest.CaptureFixture[str], test: str, verdict: str, detail: str, code: int
) -> None:
    breakage(checkout.parent / "patches", 1, test)
    assert run(checkout) == code
    said = capsys.readouterr().out
    assert f"01 {verdict} " in said
    assert f"        tests/{test}\n" in said
    assert detail in said


def test_a_patch_that_the_code_has_left_behind_is_told(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breakage(checkout.parent / "patches", 1, "test_holds.py", old="WHOLE = 1")
    assert run(checkout) == 1
    assert "01 does not apply" in capsys.readouterr().out


def test_code_that_cannot_even_be_imported_shows_nothing(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breakage(checkout.parent / "patches", 1, "test_holds.py", new="WHOLE =")
    assert run(checkout) == 1
    said = capsys.readouterr().out
    assert "01 broken" in said
    assert "SyntaxError" in said


def test_what_is_not_committed_is_tried_too(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    (checkout / "toy.py").write_text("WHOLE = 'wholly'\n")
    (checkout / "tests" / "test_fails.py").unlink()
    breakage(checkout.parent / "patches", 1, "test_holds.py", old="WHOLE = 'wholly'")
    assert run(checkout) == 0


def test_several_are_tried_at_a_time_and_counted(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, test in enumerate(["test_holds.py", "test_lax.py", "test_holds.py"], 1):
        breakage(checkout.parent / "patches", number, test)
    assert run(checkout, "--jobs", "3") == 1
    assert capsys.readouterr().out.endswith("\n2 red, 1 GREEN\n")


def test_numbers_choose(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 3):
        breakage(checkout.parent / "patches", number, "test_holds.py")
    assert run(checkout, "2", "--list") == 0
    assert capsys.readouterr().out == "02  It is whole (2).\n    tests/test_holds.py\n"
    assert run(checkout, "7") == 2
    assert "there is no breakage 07; there are: 01 02 03" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["0", "many"])
def test_an_impossible_number_of_jobs_is_refused(
    checkout: Path, capsys: pytest.CaptureFixture[str], jobs: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(checkout, "--jobs", jobs)
    assert f"'{jobs}' is no number from 1 on" in capsys.readouterr().err


def test_a_process_that_a_broken_test_leaves_is_ended(checkout: Path) -> None:
    (checkout / "tests" / "test_holds.py").write_text(
        "import subprocess, sys\nfrom pathlib import Path\nfrom toy import WHOLE\n"
        "def test_holds(tmp_path):\n"
        "    code = 'import time; time.sleep(60)'\n"
        "    if not WHOLE:\n"
        "        left = subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path, start_new_session=True)\n"
        f"        Path({str(checkout.parent / 'pid')!r}).write_text(str(left.pid))\n"
        "    assert WHOLE\n"
    )
    breakage(checkout.parent / "patches", 1, "test_holds.py")
    assert run(checkout) == 0
    assert not psutil.pid_exists(int((checkout.parent / "pid").read_text()))


def test_ctrl_c_ends_the_tests_and_removes_the_copies(checkout: Path, trees: Path) -> None:
    started = checkout.parent / "started"
    (checkout / "tests" / "test_holds.py").write_text(
        "import time\nfrom pathlib import Path\n"
        f"def test_holds(): Path({str(started)!r}).touch(); time.sleep(60)\n"
    )
    breakage(checkout.parent / "patches", 1, "test_holds.py")
    code = (
        "import sys; from pathlib import Path; from tests.breakages.__main__ import main\n"
        f"sys.exit(main([], checkout=Path({str(checkout)!r}), folder=Path({str(checkout.parent / 'patches')!r})))"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(trees)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    runner.send_signal(signal.SIGINT)
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert said == "interrupted; the copies of the checkout are removed\n"
    assert not list(trees.iterdir())
