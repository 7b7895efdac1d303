"""Later builds are downloaded and compiled in the background, and stopped when their turn comes."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.bom import GoBuild
from toolchain.sources.ahead import WorkAhead

FIRST = GoBuild("sample", {"first": "example.test/first"})
SECOND = GoBuild("sample", {"second": "example.test/second"})
COMPILER = f"""#!{sys.executable}
import os, sys, time
with open({{log!r}}, "a") as file:
    print(sys.argv[1], sys.argv[-1], os.getpid(), os.nice(0), "-overlay" in sys.argv, file=file)
if sys.argv[1] == "mod":
    print('{{{{"Dir": "%s"}}}}' % os.environ["MODULE"])
if sys.argv[-1] in os.environ.get("HANG", "") and sys.argv[1] == "build":
    time.sleep(60)
"""


@pytest.fixture
def log(tmp_path: Path, recipes: Path) -> Path:
    (recipes / "sample").mkdir()
    (tmp_path / "bin").mkdir()
    path = tmp_path / "log"
    compiler = tmp_path / "bin/go"
    compiler.write_text(COMPILER.format(log=str(path)))
    compiler.chmod(0o755)
    return path


def environment(tmp_path: Path, hang: str = "") -> dict[str, str]:
    return {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HANG": hang, "GOPATH": str(tmp_path / "go")}


def rows(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60  # the compiler starts with the lowest priority
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def alive(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_modules_are_downloaded_first_and_then_the_last_build_is_compiled(tmp_path: Path, log: Path) -> None:
    with WorkAhead() as ahead:
        ahead.begin([FIRST, SECOND], environment(tmp_path))
        ahead.begin([FIRST], environment(tmp_path))
        wait_until(lambda: len(rows(log)) == 4)
    assert [(row[0], row[1]) for row in rows(log)] == [
        ("list", "example.test/first"),
        ("list", "example.test/second"),
        ("build", "example.test/second"),
        ("build", "example.test/first"),
    ]


def test_compiling_ahead_yields_to_everything_else(tmp_path: Path, log: Path) -> None:
    with WorkAhead() as ahead:
        ahead.begin([FIRST], environment(tmp_path))
        wait_until(lambda: len(rows(log)) == 2)
    assert int(rows(log)[1][3]) >= min(19, os.nice(0) + 19)


def test_a_build_that_embeds_files_is_compiled_with_them(tmp_path: Path, log: Path, recipes: Path) -> None:
    (recipes / "sample/embedded.toml").write_text('["a.json"]\nmodule = "example.test/m"\npath = "a.json"\n')
    (tmp_path / "a.json").write_text("{}")
    with WorkAhead() as ahead:
        ahead.begin([FIRST], environment(tmp_path) | {"MODULE": str(tmp_path)})
        wait_until(lambda: len(rows(log)) == 3)
    assert [row[0] for row in rows(log)] == ["mod", "list", "build"]
    assert [row[4] for row in rows(log)] == ["False", "True", "True"], "which of them were given the overlay"


def test_a_build_whose_files_cannot_be_had_is_left_for_the_build_to_tell(
    tmp_path: Path, log: Path, recipes: Path
) -> None:
    (recipes / "sample/embedded.toml").write_text('["a.json"]\nmodule = "example.test/m"\npath = "a.json"\n')
    with WorkAhead() as ahead:
        ahead.begin([FIRST], environment(tmp_path) | {"MODULE": str(tmp_path)})
        wait_until(lambda: len(rows(log)) == 3)
    assert [row[0] for row in rows(log)] == ["mod", "list", "build"]


def test_a_build_whose_turn_has_come_is_left_to_the_foreground(tmp_path: Path, log: Path) -> None:
    with WorkAhead() as ahead:
        ahead.begin([FIRST, SECOND], environment(tmp_path, hang=SECOND.packages["second"]))
        wait_until(lambda: len(rows(log)) == 3)
        ahead.leave(SECOND)
        wait_until(lambda: len(rows(log)) == 4)
        assert not alive(rows(log)[2][2])
        assert rows(log)[3][:2] == ["build", "example.test/first"]


def test_a_build_that_had_its_turn_is_not_begun(tmp_path: Path, log: Path) -> None:
    with WorkAhead() as ahead:
        ahead.leave(SECOND)
        ahead.begin([FIRST, SECOND], environment(tmp_path))
        wait_until(lambda: len(rows(log)) == 2)
    assert {row[1] for row in rows(log)} == {"example.test/first"}


def test_the_end_of_the_run_ends_the_background(tmp_path: Path, log: Path) -> None:
    with WorkAhead() as ahead:
        ahead.begin([FIRST, SECOND], environment(tmp_path, hang=SECOND.packages["second"]))
        wait_until(lambda: len(rows(log)) == 3)
    wait_until(lambda: not alive(rows(log)[2][2]))
    time.sleep(0.1)
    assert len(rows(log)) == 3


def test_a_compiler_that_is_gone_is_left_for_the_build_to_tell(tmp_path: Path, log: Path) -> None:
    with WorkAhead() as ahead:
        ahead.begin([FIRST], environment(tmp_path) | {"PATH": str(tmp_path)})
    assert rows(log) == []


def test_without_later_builds_nothing_is_begun() -> None:
    with WorkAhead() as ahead:
        ahead.begin([], {})
