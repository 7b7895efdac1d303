from dataclasses import replace

import pytest
from marketlake.archive.collection.batches import BatchState, Failure, Progress
from marketlake.cli import collect
from marketlake.cli.exit_codes import ExitCode
from marketlake.cli.follower import RunResult

from tests.unit.marketlake.cli.test_follower import DONE


def told(
    progress: Progress, capsys: pytest.CaptureFixture[str], failures: list[Failure] | None = None
) -> tuple[str, str]:
    result = RunResult(progress=progress, exit_code=ExitCode.COMPLETE, seconds=1.23)
    summary = collect._summary(result, failures or []) | {
        "batch_id": "b",
        "flow_run": "http://run",
        "trace_id": None,
    }
    collect.show(summary)
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_the_summary_counts(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = told(replace(DONE, rows=1234567, size=2048), capsys)
    assert "1,234,567" in out
    assert err.strip() == "2.0 KiB in 1.2 s; batch b; run http://run"


def test_each_failed_file_is_told_up_to_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    failures = [
        Failure(key=f"k{number:03}", code="truncated", message="what to do", attempts=2)
        for number in range(60)
    ]
    out, err = told(replace(DONE, failed=60), capsys, failures)
    assert "k049" in out
    assert "k050" not in out
    assert "… and 10 more failures: --json lists all" in err


def test_what_is_still_to_come_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = told(replace(DONE, state=BatchState.FAILED, queued=2, error="the bus is away"), capsys)
    assert "2 files are still to come: run the same command again to go on" in err
    assert "error: the bus is away" in err


def test_series_that_are_not_refined_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = told(replace(DONE, unrefined=3), capsys)
    assert "3 series are not refined: run the same command again" in err


def test_nothing_found_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = told(replace(DONE, found=0, copied=0, verified=0), capsys)
    assert "the venue shows no such file" in err
