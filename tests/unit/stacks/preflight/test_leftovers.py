import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from marketlake.settings import HealthKind, ServiceInfo

from components.supervision.layout import STACK_MARK
from stacks.preflight import leftovers


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process of the stack in `tmp_path` that ignores polite requests."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, STACK_MARK: str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_orphans_are_found_by_their_mark_and_ended(tmp_path: Path, orphan: "subprocess.Popen[str]") -> None:
    assert [process.pid for process in leftovers.processes(tmp_path)] == [orphan.pid]
    (name,) = leftovers.stop_processes(tmp_path, grace_s=0.2)
    assert "signal.SIG_IGN" in name
    assert not psutil.pid_exists(orphan.pid)
    assert leftovers.processes(tmp_path) == []


def test_another_stacks_processes_are_left_alone(tmp_path: Path, orphan: "subprocess.Popen[str]") -> None:
    assert leftovers.stop_processes(tmp_path / "other", grace_s=0.2) == []
    assert orphan.poll() is None


def test_addresses_come_from_all_that_a_service_was_known_by() -> None:
    services = (
        ServiceInfo(
            name="object-store",
            version="1",
            address="http://127.0.0.1:9000",
            console="http://127.0.0.1:9001/",
            health=HealthKind.HTTP,
            target="http://127.0.0.1:9000/health",
        ),
        ServiceInfo(
            name="event-bus",
            version="1",
            address="127.0.0.1:9092",
            health=HealthKind.TCP,
            target="127.0.0.1:9092",
        ),
        ServiceInfo(name="worker", version="1", health=HealthKind.PROCESS),
    )
    assert leftovers.addresses(services) == [("127.0.0.1", 9000), ("127.0.0.1", 9001), ("127.0.0.1", 9092)]


def test_an_address_that_still_answers_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()
        assert leftovers.listening([busy, ("127.0.0.1", 1)]) == [busy]
    assert leftovers.listening([busy]) == []


def stack_files(folder: Path) -> None:
    for path in ("supervisor/a", "logs/a.log", "services/a/b", "tools/x/y", "data/database/data/f"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).touch()
    for name in ("ports.json", "platform.json", ".platform.json.part"):
        (folder / name).touch()


def test_a_stacks_folder_goes_whole(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    stack_files(folder)
    assert leftovers.remove_folder(folder, keep_data=False) == []
    assert not folder.exists()
    assert leftovers.remove_folder(folder, keep_data=False) == []


def test_data_that_is_kept_stays_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    stack_files(folder)
    assert leftovers.remove_folder(folder, keep_data=True) == []
    assert [path.name for path in folder.iterdir()] == ["data"]
    assert (folder / "data/database/data/f").exists()


def test_a_folder_without_data_goes_even_if_data_were_to_be_kept(tmp_path: Path) -> None:
    (tmp_path / "local" / "logs").mkdir(parents=True)
    assert leftovers.remove_folder(tmp_path / "local", keep_data=True) == []
    assert not (tmp_path / "local").exists()


def test_what_is_not_the_stacks_is_left_and_named(tmp_path: Path) -> None:
    stack_files(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    outside = tmp_path.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "file").touch()
    (tmp_path / "logs" / "a.log").unlink()
    (tmp_path / "logs").rmdir()
    (tmp_path / "logs").symlink_to(outside)

    assert leftovers.remove_folder(tmp_path, keep_data=False) == [tmp_path / "notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (outside / "file").exists(), "a link was followed"
