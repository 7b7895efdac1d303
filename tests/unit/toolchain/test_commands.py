"""Programs that build and download are followed line by line, and their failures are reported."""

import sys
import time
from pathlib import Path

import pytest

from toolchain.commands import run
from toolchain.errors import CommandFailedError, DiskSpaceError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_is_given_and_errors_are_followed(tmp_path: Path) -> None:
    heard: list[str] = []
    log = tmp_path / "log"
    said = run(
        python("import os,sys; print(os.environ['GREETING'], os.getcwd()); print('step', file=sys.stderr)"),
        env={"GREETING": "hello"}, cwd=tmp_path, log=log, on_line=heard.append,
    )  # fmt: skip
    assert said == f"hello {tmp_path}\n"
    assert heard == ["step"]
    assert "step\nhello" in log.read_text()


def test_a_failure_carries_the_last_lines_and_where_all_of_them_are(tmp_path: Path) -> None:
    code = "import sys; [print(f'line {n}', file=sys.stderr) for n in range(50)]; sys.exit(3)"
    with pytest.raises(CommandFailedError) as failure:
        run(python(code), log=tmp_path / "log")
    message = str(failure.value)
    assert "ended with 3" in message
    assert "line 49" in message
    assert "line 10" not in message
    assert f"full output: {tmp_path / 'log'}" in message
    assert "line 10" in (tmp_path / "log").read_text()


def test_a_failure_without_errors_shows_its_output() -> None:
    with pytest.raises(CommandFailedError, match="only this"):
        run(python("print('only this'); raise SystemExit(1)"))


def test_a_full_disk_is_told_as_such() -> None:
    with pytest.raises(DiskSpaceError, match="No space left on device"):
        run(python("raise SystemExit('write: No space left on device')"))


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandFailedError, match="cannot start /no/such/program"):
        run(["/no/such/program"])


def test_an_interruption_kills_the_program_and_its_children() -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    code = (
        "import subprocess,sys,time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, file=sys.stderr, flush=True); time.sleep(60)"
    )
    with pytest.raises(KeyboardInterrupt):
        run(python(code), on_line=interrupt)
    deadline = time.monotonic() + 5
    while alive(pids[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pids[0])


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
