"""Programs in front of the user: their exit codes, and what becomes of requests to stop."""

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from stacks.engine.process import InterruptError, ProgramError, read, run

ROOT = Path(__file__).parents[4]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def test_a_program_that_ends_well_is_no_news(tmp_path: Path) -> None:
    run(python("open('done', 'w')"), env=os.environ, cwd=tmp_path)
    assert (tmp_path / "done").exists()


def test_an_exit_code_is_handed_on(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"`python\S* -c` ended with exit code 7") as caught:
        run(python("raise SystemExit(7)"), env=os.environ, cwd=tmp_path)
    assert caught.value.code == 7


@pytest.mark.parametrize("code", ["raise SystemExit(130)", "import os; os.kill(os.getpid(), 2)"])
def test_a_program_that_was_interrupted_by_itself_counts_as_such(tmp_path: Path, code: str) -> None:
    with pytest.raises(InterruptError):
        run(python(f"import signal; signal.signal(2, signal.SIG_DFL); {code}"), env=os.environ, cwd=tmp_path)


def test_what_a_quiet_program_wrote_is_returned(tmp_path: Path) -> None:
    assert read(python("print('said')"), env=os.environ, cwd=tmp_path) == "said\n"


def test_the_errors_of_a_quiet_program_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProgramError) as caught:
        read(python("import sys; sys.exit('what went wrong')"), env=os.environ, cwd=tmp_path)
    assert caught.value.code == 1
    assert "what went wrong" in capsys.readouterr().err


def program(folder: Path) -> list[str]:
    """One that runs another, which counts how often it is asked to stop and then cleans up."""
    child = """
        import signal, time
        asked = []
        signal.signal(signal.SIGINT, lambda *_: asked.append(1))
        open('ready', 'w').close()
        while not asked:
            time.sleep(0.01)
        time.sleep(0.5)
        open('cleaned', 'w').write(str(len(asked)))
    """
    return python(f"""
        import os, sys
        from pathlib import Path
        from stacks.engine.process import InterruptError, run
        try:
            run({python(child)!r}, env=os.environ, cwd=Path({str(folder)!r}))
        except InterruptError:
            sys.exit(99)
    """)


def await_file(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_reaches_the_program_once_and_it_may_clean_up(
    tmp_path: Path, number: signal.Signals
) -> None:
    """However often it is asked: Pulumi takes a second SIGINT as an order to die at once."""
    process = subprocess.Popen(program(tmp_path), cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
    await_file(tmp_path / "ready")
    process.send_signal(number)
    time.sleep(0.1)
    process.send_signal(number)

    assert process.wait(20) == 99
    assert (tmp_path / "cleaned").read_text() == "1"


def test_a_background_jobs_program_is_asked_to_stop_too(tmp_path: Path) -> None:
    """A shell starts background jobs deaf to SIGINT, and what they start inherits that."""
    child = """
        import time
        try:
            open('ready', 'w').close()
            time.sleep(60)
        except KeyboardInterrupt:
            open('cleaned', 'w').close()
    """
    job = f"""
        import os, signal, sys
        from pathlib import Path
        from stacks.engine.process import InterruptError, run
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            run({python(child)!r}, env=os.environ, cwd=Path({str(tmp_path)!r}))
        except InterruptError:
            sys.exit(99)
    """
    process = subprocess.Popen(python(job), cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
    await_file(tmp_path / "ready")
    process.terminate()

    assert process.wait(20) == 99
    assert (tmp_path / "cleaned").exists()


def test_a_request_to_stop_that_comes_before_the_program_runs_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        signal.raise_signal(signal.SIGTERM)
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    began = time.monotonic()
    with pytest.raises(InterruptError):
        run(["sleep", "30"], env=os.environ, cwd=tmp_path)
    assert time.monotonic() - began < 20


def test_ctrl_c_on_a_terminal_reaches_the_program_once(tmp_path: Path) -> None:
    number, terminal = pty.fork()
    if number == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, program(tmp_path))  # noqa: S606 - what a terminal starts is this very program
    await_file(tmp_path / "ready")
    os.write(terminal, b"\x03")

    _, status = os.waitpid(number, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 99
    assert (tmp_path / "cleaned").read_text() == "1"


def test_former_signal_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run(python(""), env=os.environ, cwd=tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before
