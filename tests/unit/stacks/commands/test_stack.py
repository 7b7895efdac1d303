"""The steps of the lifecycle around Pulumi; tests/integration/test_lifecycle.py has the real one in it."""

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from marketlake.settings import ServiceInfo, Settings
from rich.console import Console

from components.supervision.layout import STACK_MARK
from stacks.commands import stack as stack_module
from stacks.commands import up as up_command
from stacks.commands.down import LeftoverError, down
from stacks.commands.stack import LockedError, Stack
from stacks.commands.up import refresh, up
from stacks.engine import workspace
from stacks.engine.state import PendingCreate
from stacks.engine.workspace import Workspace
from stacks.preflight import host
from stacks.preflight.capacity import CapacityError, Machine
from tests.unit.stacks.engine.test_state import lock

EXTERNAL = """\
config:
  marketlake:database: {external: {host: db.test, superuser: admin}}
  marketlake:objectStore: {external: {endpoint: "https://s3.test", accessKeyId: key}}
  marketlake:eventBus: {external: {bootstrapServers: "bus.test:9092", securityProtocol: SSL}}
  marketlake:venue: {standIn: false}
"""
AMPLE = Machine(cpus=8, memory_mib=64_000, memory_available_mib=64_000, disk_free_mib=500_000)


class Fixture:
    """A stack whose programs are recorded instead of run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = io.StringIO()
        self.ran: list[list[str]] = []
        self.answers: list[str] = []
        self.machine = AMPLE

    @property
    def stack(self) -> Stack:
        space = Workspace(self.folder / "project", self.folder / "config", self.folder / "state")
        return Stack("blue", space, Console(file=self.said, width=200))

    @property
    def data(self) -> Path:
        return self.folder / "data" / "blue"

    @property
    def text(self) -> str:
        return self.said.getvalue()

    def run(self, argv: list[str], **_: Any) -> None:
        self.ran.append([Path(argv[0]).name, *argv[1:]])

    def read(self, argv: list[str], **_: Any) -> str:
        self.run(argv)
        match argv[1:3]:
            case ["stack", "init"]:
                self.stack.workspace.prepare()
                state = self.stack.workspace.state_file("blue")
                state.parent.mkdir(parents=True)
                state.touch()
                settings = self.stack.settings_file
                settings.write_text(settings.read_text() + "encryptionsalt: v1:x\n")
            case ["stack", "rm"]:
                self.stack.workspace.state_file("blue").unlink()
            case ["sql", "--json"]:
                return self.answers.pop(0)
        return ""

    def write_platform_file(self, *services: ServiceInfo) -> None:
        settings = Settings.model_validate(
            {
                "environment": "blue",
                "object_store": {"endpoint": "http://x", "access_key_id": "k", "secret_access_key": "s"},
                "event_bus": {"bootstrap_servers": "x:1"},
                "database": {"host": "x", "port": 1, "user": "u", "password": "p"},
                "workflow_engine": {"api_url": "http://x/api", "ui_url": "http://x"},
                "services": services,
            }
        )
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "platform.json").write_text(settings.to_json())


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fixture:
    fixture = Fixture(tmp_path)
    settings = fixture.stack.settings_file
    settings.parent.mkdir(parents=True)
    settings.write_text("config:\n  marketlake:target: host\n")
    for variable in ("MARKETLAKE_PLATFORM_FILE", "MARKETLAKE_ENVIRONMENT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MARKETLAKE_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(workspace, "locate", lambda _: None)
    monkeypatch.setattr(workspace, "bin_folder", lambda: tmp_path)
    monkeypatch.setattr(stack_module, "run", fixture.run)
    monkeypatch.setattr(stack_module, "read", fixture.read)
    monkeypatch.setattr(host.Machine, "this", lambda _: fixture.machine)
    return fixture


PAGE = ServiceInfo.model_validate(
    {"name": "log-store", "version": "1", "console": "http://127.0.0.1:1/vmui/", "health": "process"}
)


def test_up_ends_with_what_came_out_and_where_to_look(fixture: Fixture) -> None:
    fixture.write_platform_file(PAGE)
    columns = [{"table_name": "candles", "time_column": "open_time"}]
    summary = {
        "table_name": "silver.candles",
        "row_count": 2880,
        "symbols": 1,
        "first_time": "a",
        "last_time": "b",
    }
    fixture.answers += [json.dumps(columns), json.dumps([summary])]

    up(fixture.stack)

    commands = [argv[:4] for argv in fixture.ran]
    assert commands[0] == ["pulumi", "stack", "init", "blue"]
    assert commands[1] == ["pulumi", "up", "--stack", "blue"]
    assert "--refresh" in fixture.ran[1]
    assert commands[2:4] == [
        ["marketlake", "venue", "publish", "samples"],
        ["marketlake", "collect", "--venue", "binance"],
    ]
    assert "silver.candles" in fixture.text
    assert "2,880" in fixture.text
    assert "http://127.0.0.1:1/vmui/" in fixture.text
    assert f"passwords are in {fixture.data / 'platform.json'}" in fixture.text
    assert fixture.stack.settings_file.read_text() == "config:\n  marketlake:target: host\n"


def test_up_without_a_collection_only_brings_the_services(fixture: Fixture) -> None:
    fixture.write_platform_file(PAGE)
    up(fixture.stack, collect=False)
    assert [argv[0] for argv in fixture.ran] == ["pulumi", "pulumi"]
    assert "http://127.0.0.1:1/vmui/" in fixture.text


def test_a_machine_that_is_too_small_stops_everything_before_it_starts(fixture: Fixture) -> None:
    fixture.machine = Machine(cpus=8, memory_mib=64_000, memory_available_mib=64_000, disk_free_mib=10)
    with pytest.raises(CapacityError, match="disk: 10 MiB are free"):
        up(fixture.stack)
    assert fixture.ran == []


def test_a_machine_that_may_do_is_warned_of(fixture: Fixture) -> None:
    fixture.write_platform_file()
    fixture.machine = Machine(cpus=8, memory_mib=64_000, memory_available_mib=100, disk_free_mib=500_000)
    up(fixture.stack, collect=False)
    assert "warning: 100 MiB of memory are free" in fixture.text


def test_the_exports_select_the_stack(fixture: Fixture) -> None:
    assert "export PULUMI_BACKEND_URL=" in fixture.stack.exports()
    assert fixture.ran[-1] == ["pulumi", "stack", "select", "blue"]


@pytest.mark.parametrize("kept", ["by the command", "by the settings"])
def test_data_is_kept_when_told_so(fixture: Fixture, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables: list[dict[str, str]] = []
    monkeypatch.setattr(stack_module, "run", lambda _, env, **__: variables.append(env))
    if kept == "by the settings":
        fixture.stack.settings_file.write_text("config:\n  marketlake:keepData: true\n")
    fixture.read(["pulumi", "stack", "init"])
    (fixture.data / "data" / "lake").mkdir(parents=True)
    (fixture.data / "logs").mkdir()

    down(fixture.stack, keep_data=kept == "by the command")

    assert variables[0]["MARKETLAKE_DATA"] == "keep"
    assert [path.name for path in fixture.data.iterdir()] == ["data"]
    assert f"its data is kept in {fixture.data}" in fixture.text


def test_a_process_that_survived_is_ended_and_told(fixture: Fixture) -> None:
    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; print('on', flush=True); time.sleep(60)"],
        env={**os.environ, STACK_MARK: str(fixture.data)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert orphan.stdout
    with orphan.stdout:
        orphan.stdout.readline()
        down(fixture.stack, keep_data=False)
    assert "stopped what was still running: " in fixture.text
    assert "nothing of 'blue' is left" in fixture.text
    assert orphan.wait(5) is not None


def test_a_port_that_still_answers_is_an_error(fixture: Fixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        service = {"name": "x", "version": "1", "address": f"127.0.0.1:{port}", "health": "process"}
        fixture.write_platform_file(ServiceInfo.model_validate(service))
        with pytest.raises(LeftoverError, match=rf"port {port} of 127\.0\.0\.1 answers"):
            down(fixture.stack, keep_data=False)


def test_a_state_that_could_not_be_removed_is_an_error(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture.read(["pulumi", "stack", "init"])
    monkeypatch.setattr(stack_module, "read", lambda *_, **__: "")
    with pytest.raises(LeftoverError, match=r"its state is in .*blue\.json"):
        down(fixture.stack, keep_data=False)


def test_a_refresh_changes_nothing_but_the_state(fixture: Fixture) -> None:
    refresh(fixture.stack)
    assert fixture.ran[-1][:2] == ["pulumi", "refresh"]
    assert [argv[1] for argv in fixture.ran] == ["stack", "refresh"]


def held_lock(fixture: Fixture, pid: int) -> Path:
    folder = fixture.stack.workspace.lock_folder("blue")
    folder.mkdir(parents=True)
    return lock(folder, pid=pid)


def test_a_stack_that_another_command_changes_is_left_alone(fixture: Fixture) -> None:
    held_lock(fixture, os.getpid())
    with pytest.raises(LockedError, match=rf"'blue' is being changed by process {os.getpid()} of user"):
        refresh(fixture.stack)
    assert fixture.ran == []


def test_the_lock_of_a_killed_command_stops_nobody(fixture: Fixture) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    left = held_lock(fixture, gone.pid)
    refresh(fixture.stack)
    assert not left.exists()
    assert f"removed the lock of a command that was killed (process {gone.pid}, " in fixture.text


class Settling:
    """Preflight that delete what a killed command began to create."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def reach(self) -> None: ...

    def settle(self, pending: list[PendingCreate]) -> list[PendingCreate]:
        self.asked += [create.name for create in pending]
        return pending[:1]


def test_what_a_killed_command_began_in_a_cluster_is_settled(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    preflight = Settling()
    monkeypatch.setattr(up_command, "preflight_of", lambda *_: preflight)
    fixture.read(["pulumi", "stack", "init"])
    began = [
        {"type": "creating", "resource": {"urn": f"urn:pulumi:blue::p::kubernetes:core/v1:Pod::{name}"}}
        for name in ("made", "absent")
    ]
    state = {"checkpoint": {"latest": {"pending_operations": began}}}
    fixture.stack.workspace.state_file("blue").write_text(json.dumps(state))

    refresh(fixture.stack)

    assert preflight.asked == ["made", "absent"]
    assert "had created without recording it: made" in fixture.text
    assert "recording it: absent" not in fixture.text
    refreshes = [argv for argv in fixture.ran if argv[1] == "refresh"]
    assert len(refreshes) == 1, "the refresh that settles is the one that was asked for"
    assert "--clear-pending-creates" in refreshes[0]


def test_what_lies_in_external_servers_is_said_to_stay(fixture: Fixture) -> None:
    fixture.stack.settings_file.write_text(EXTERNAL)
    down(fixture.stack, keep_data=False)
    assert (
        "stays there: databases at db.test, buckets at https://s3.test, topics at bus.test:9092"
        in fixture.text
    )
