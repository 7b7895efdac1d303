"""A terminal gets a live line, a log gets plain lines and a heartbeat."""

import io
import time

import pytest
from rich.console import Console

from toolchain.progress import LiveProgress, PlainProgress, Within, duration, progress_for


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (125.4, "2 min 05 s")]
)
def test_durations_are_read_by_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_shows_every_step_and_repeats_a_long_one() -> None:
    stream = io.StringIO()
    with PlainProgress(stream, heartbeat=0.03) as progress:
        progress.start("minio", "2/5")
        progress.step("compiling minio")
        progress.detail("package 7 of at most 9: net")
        deadline = time.monotonic() + 5
        while stream.getvalue().count("package 7") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        progress.line("✓ minio")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[2/5] minio: compiling minio"
    assert lines[1].startswith("[2/5] minio: compiling minio, package 7 of at most 9: net, 0.")
    assert lines[-1] == "✓ minio"


def test_a_log_is_silent_before_anything_begins() -> None:
    stream = io.StringIO()
    with PlainProgress(stream, heartbeat=0.01):
        time.sleep(0.05)
    assert stream.getvalue() == ""


def test_a_terminal_shows_where_it_is_and_keeps_what_is_done() -> None:
    stream = io.StringIO()
    with LiveProgress(Console(file=stream, force_terminal=True, width=100)) as progress:
        progress.start("jaeger", "1/1")
        progress.step("compiling jaeger")
        progress.detail("package 3 of at most 9: [net]")
        time.sleep(0.3)
        progress.line("✓ jaeger [done]")
    shown = stream.getvalue()
    assert "[1/1] jaeger: compiling jaeger, package 3 of at most 9: [net]" in shown
    assert "✓ jaeger [done]" in shown


def test_a_narrow_terminal_keeps_one_line() -> None:
    stream = io.StringIO()
    with LiveProgress(Console(file=stream, force_terminal=True, width=40)) as progress:
        progress.start("jaeger", "1/1")
        progress.step("compiling " + "very/" * 30)
        time.sleep(0.2)
    assert "…" in stream.getvalue()


def test_the_steps_of_a_needed_tool_stay_in_the_turn_of_the_one_that_needs_it(progress) -> None:
    inner = Within(progress, "go")
    inner.start("go", "1/1")
    inner.step("downloading the wheel")
    inner.line("✓ go")
    assert progress.starts == []
    assert progress.steps == ["go: downloading the wheel"]
    assert progress.lines == ["✓ go"]


def test_what_is_no_terminal_gets_plain_lines() -> None:
    assert isinstance(progress_for(io.StringIO()), PlainProgress)


def test_a_terminal_gets_the_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress_for(io.StringIO()), LiveProgress)
