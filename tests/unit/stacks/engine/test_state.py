import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stacks.engine.state import heal_locks, locks


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def lock(folder: Path, name: str = "a", **fields: Any) -> Path:
    """A lock as Pulumi 3.250's file backend writes it."""
    entry = {
        "pid": os.getpid(),
        "username": "user",
        "hostname": socket.gethostname(),
        "timestamp": datetime.now(tz=UTC).isoformat().replace("+00:00", "123Z"),
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(entry | fields))
    path.with_name(f"{name}.json.attrs").write_text("{}")
    return path


def test_the_lock_of_a_killed_command_is_removed_and_told(tmp_path: Path, gone: int) -> None:
    lock(tmp_path, pid=gone)
    (healed,) = heal_locks(tmp_path)
    assert (healed.pid, healed.user) == (gone, "user")
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_running_command_stays(tmp_path: Path) -> None:
    path = lock(tmp_path)
    assert heal_locks(tmp_path) == []
    assert path.exists()
    assert [held.pid for held in locks(tmp_path)] == [os.getpid()]


def test_a_number_that_went_to_another_process_is_no_reason_to_wait(tmp_path: Path) -> None:
    long_ago = datetime.now(tz=UTC) - timedelta(days=1)
    lock(tmp_path, timestamp=long_ago.isoformat())
    assert len(heal_locks(tmp_path)) == 1


def test_a_killed_command_that_nobody_has_waited_for_is_gone(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    lock(tmp_path, pid=process.pid)
    assert heal_locks(tmp_path) == []
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert len(heal_locks(tmp_path)) == 1
    process.wait()


def test_what_runs_on_another_host_is_not_judged(tmp_path: Path, gone: int) -> None:
    lock(tmp_path, pid=gone, hostname="elsewhere")
    assert heal_locks(tmp_path) == []
    assert len(list(locks(tmp_path))) == 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"pid": 1}', '{"pid": "x", "timestamp": "now"}'])
def test_a_lock_that_cannot_be_read_is_left(tmp_path: Path, text: str) -> None:
    path = lock(tmp_path)
    path.write_text(text)
    assert heal_locks(tmp_path) == []
    assert path.exists()


def test_without_locks_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert heal_locks(tmp_path / "never-locked") == []
