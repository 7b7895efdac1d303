import logging
import os
from pathlib import Path

import pytest
from marketlake.workers.liveness import BEAT_EVERY_S, Liveness


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def aged(file: Path) -> Path:
    os.utime(file, (0, 0))
    return file


def test_each_round_of_the_loop_leaves_a_sign_of_life_but_not_more_often_than_anybody_looks(
    tmp_path: Path,
) -> None:
    clock, file = Clock(), tmp_path / "heartbeat"
    liveness = Liveness(file, clock=clock)
    liveness.beat()
    assert aged(file).stat().st_mtime == 0
    liveness.beat()
    assert file.stat().st_mtime == 0
    clock.now += BEAT_EVERY_S
    liveness.beat()
    assert file.stat().st_mtime > 0


def test_a_process_is_told_by_a_variable_where_to_leave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKETLAKE_HEARTBEAT_FILE", str(tmp_path / "heartbeat"))
    Liveness.of_process().beat()
    assert (tmp_path / "heartbeat").exists()


def test_nothing_is_written_where_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MARKETLAKE_HEARTBEAT_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    Liveness.of_process().beat()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_stops_no_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    liveness = Liveness(tmp_path / "none" / "heartbeat", clock=lambda: 10.0 * len(caplog.records))
    with caplog.at_level(logging.WARNING):
        liveness.beat()
        liveness.beat()
    assert len(caplog.records) == 1
    assert "no sign of life" in caplog.text
