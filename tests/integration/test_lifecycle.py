"""The lifecycle of a stack with the real Pulumi, on a project whose only resource is a file."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from stacks.commands import stack as stack_module
from stacks.commands import up as up_command
from stacks.commands.down import LeftoverError, down
from stacks.commands.preview import preview
from stacks.commands.stack import LockedError, Stack
from stacks.commands.up import refresh, up
from stacks.engine.process import ProgramError
from stacks.engine.workspace import PROJECT_FOLDER, Workspace
from stacks.settings.validation import InvalidSettingsError

NOTE = '''
"""A resource that is a file; `wait` names a file whose presence creation waits for."""

import time
from pathlib import Path
from typing import Any

from components.providers.base import Inputs, Provider, ResourceError
from pulumi.dynamic import Resource


class NoteInputs(Inputs):
    path: str
    text: str
    secret: str
    wait: str | None = None


class NoteProvider(Provider[NoteInputs, NoteInputs]):
    model = record = NoteInputs
    identity = frozenset({"path"})

    def resource_id(self, declared: NoteInputs) -> str:
        return declared.path

    def apply(self, declared: NoteInputs) -> dict[str, Any]:
        if declared.text == "impossible":
            raise ResourceError("this note cannot be written")
        Path(declared.path + ".begun").touch()
        while declared.wait and not Path(declared.wait).exists():
            time.sleep(0.05)
        Path(declared.path).write_text(declared.text)
        return {}

    def observe(self, declared: NoteInputs) -> dict[str, Any] | None:
        path = Path(declared.path)
        return {"text": path.read_text()} if path.exists() else None

    def remove(self, declared: NoteInputs) -> None:
        Path(declared.path).unlink(missing_ok=True)


class Note(Resource, module="marketlake", name="Note"):
    def __init__(self, name: str, **inputs: Any) -> None:
        super().__init__(NoteProvider(), name, {**inputs, "version": "1"})
'''
PROGRAM = """
import json, os
from pathlib import Path
import pulumi
from note import Note

wanted = json.loads(Path("../wanted.json").read_text())
Note("note", secret=pulumi.Output.secret("the-secret"), **wanted)
pulumi.export("path", wanted["path"])
"""
SETTINGS = "# Mine.\nconfig:\n  marketlake:target: host # here\n"


@dataclass
class Project:
    folder: Path
    said: io.StringIO

    @property
    def note(self) -> Path:
        return self.folder / "note.txt"

    @property
    def stack(self) -> Stack:
        workspace = Workspace(self.folder / "project", self.folder / "config", self.folder / "state")
        return Stack("blue", workspace, Console(file=self.said, width=300))

    @property
    def settings(self) -> Path:
        return self.stack.settings_file

    def want(self, text: str, wait: Path | None = None) -> None:
        wanted = {"path": str(self.note), "text": text} | ({"wait": str(wait)} if wait else {})
        (self.folder / "project" / "wanted.json").write_text(json.dumps(wanted))

    def start(self, command: str) -> "subprocess.Popen[bytes]":
        """A lifecycle command as a process of its own."""
        paths = ", ".join(f"Path({str(self.folder / part)!r})" for part in ("project", "config", "state"))
        code = f"""
            import sys
            from pathlib import Path
            from rich.console import Console
            from stacks.commands import up as up_command
            from stacks.commands.stack import Stack
            from stacks.commands.up import up
            from stacks.engine.process import InterruptError
            from stacks.engine.workspace import Workspace
            up_command.show_summary = lambda *_, **__: None
            stack = Stack("blue", Workspace({paths}), Console())
            try:
                {command}
            except InterruptError:
                sys.exit(130)
        """
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=PROJECT_FOLDER,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def pulumi(self, command: str) -> str:
        """Plain Pulumi in a shell that has evaluated the exports."""
        script = f'cd {self.folder / "project"} && eval "$EXPORTS" && pulumi {command}'
        done = subprocess.run(
            ["bash", "-c", script],
            env={**os.environ, "EXPORTS": self.stack.exports()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that is laid out as ours, with an environment `blue`."""
    monkeypatch.setenv("MARKETLAKE_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(up_command, "show_summary", lambda *_, **__: None)
    environments = tmp_path / "project" / "stacks" / "environments"
    environments.mkdir(parents=True)
    (environments / "Pulumi.blue.yaml").write_text(SETTINGS)
    (tmp_path / "project" / "Pulumi.yaml").write_text((PROJECT_FOLDER / "Pulumi.yaml").read_text())
    (tmp_path / "project" / "stacks" / "__main__.py").write_text(PROGRAM)
    (tmp_path / "project" / "stacks" / "note.py").write_text(NOTE)
    (tmp_path / "project" / ".venv").symlink_to(sys.prefix)
    (tmp_path / "project" / "stacks" / ".venv").symlink_to("../.venv")
    project = Project(tmp_path, io.StringIO())
    project.want("first")
    return project


def await_file(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def await_end(number: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def providers(project: Project) -> list[psutil.Process]:
    """Dynamic providers that run for this project."""
    found = []
    for process in psutil.process_iter():
        try:
            if "pulumi.dynamic" in process.cmdline() and process.cwd() == str(
                project.folder / "project" / "stacks"
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_up_repairs_what_drifted_and_down_leaves_nothing(project: Project) -> None:
    up(project.stack, collect=False)
    assert project.note.read_text() == "first"
    assert project.settings.read_text() == SETTINGS

    project.note.unlink()
    up(project.stack, collect=False)
    assert project.note.read_text() == "first"

    project.note.write_text("by hand")
    preview(project.stack)
    assert project.note.read_text() == "by hand"
    refresh(project.stack)
    up(project.stack, collect=False)
    assert project.note.read_text() == "first"
    state = project.stack.workspace.state_file("blue").read_text()
    assert "the-secret" not in state
    assert '"ciphertext"' in state

    down(project.stack, keep_data=False)
    assert not project.note.exists()
    assert project.settings.read_text() == SETTINGS
    backend = project.stack.workspace.backend
    assert not [path for path in backend.rglob("*blue*") if path.is_file()]
    assert "nothing of 'blue' is left" in project.said.getvalue()
    down(project.stack, keep_data=False)
    assert "there is no stack 'blue'" in project.said.getvalue()


def test_plain_pulumi_works_after_the_exports_and_leaves_the_settings_file_as_it_is(project: Project) -> None:
    assert "+ 2 created" in project.pulumi("up --yes")
    assert project.settings.read_text() == SETTINGS
    assert project.pulumi("stack output path").strip() == str(project.note)
    assert "2 unchanged" in project.pulumi("preview")
    project.note.write_text("by hand")
    assert "~ 1 updated" in project.pulumi("refresh --yes")
    assert "~ 1 to update" in project.pulumi("preview")
    assert "target" in project.pulumi("config")
    assert project.settings.read_text() == SETTINGS
    project.pulumi("config set --path marketlake:ports.eventBus 19092")
    assert "eventBus: 19092" in project.settings.read_text()
    assert project.stack.validate().ports.event_bus == 19092
    project.settings.write_text(SETTINGS)
    project.pulumi("destroy --yes")
    assert not project.note.exists()
    assert project.settings.read_text() == SETTINGS


def test_a_run_that_was_killed_is_taken_up_again(project: Project) -> None:
    go_on = project.folder / "go-on"
    project.want("second", wait=go_on)
    process = project.start("up(stack, collect=False)")
    await_file(Path(f"{project.note}.begun"))
    (pulumi,) = [child for child in psutil.Process(process.pid).children() if child.name() == "pulumi"]
    with pytest.raises(LockedError, match=rf"'blue' is being changed by process {pulumi.pid}"):
        up(project.stack, collect=False)
    began = providers(project)
    assert began

    process.kill()
    pulumi.kill()
    process.wait()
    await_end(pulumi.pid)
    for provider in began:
        await_end(provider.pid)  # it ends with its engine, rather than meet the next run
    assert not project.note.exists()

    go_on.touch()
    up(project.stack, collect=False)
    assert f"removed the lock of a command that was killed (process {pulumi.pid}" in project.said.getvalue()
    assert project.note.read_text() == "second"
    assert project.settings.read_text() == SETTINGS
    down(project.stack, keep_data=False)
    assert not project.note.exists()


def test_a_run_that_is_asked_to_stop_unlocks_the_stack_and_cleans_up(project: Project) -> None:
    go_on = project.folder / "go-on"
    project.want("second", wait=go_on)
    process = project.start("up(stack, collect=False)")
    await_file(Path(f"{project.note}.begun"))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    go_on.touch()

    assert process.wait(60) == 130
    assert not list(project.stack.workspace.lock_folder("blue").glob("*.json"))
    assert project.settings.read_text() == SETTINGS
    down(project.stack, keep_data=False)


def test_a_resource_that_fails_fails_the_command_and_the_next_goes_on(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.want("impossible")
    with pytest.raises(ProgramError) as caught:
        up(project.stack, collect=False)
    assert caught.value.code > 0
    out = "".join(capfd.readouterr())
    assert "this note cannot be written" in out
    assert "the-secret" not in out
    assert "ResourceError" not in out, "an expected error was shown with its stack trace"

    project.want("possible")
    up(project.stack, collect=False)
    assert project.note.read_text() == "possible"
    down(project.stack, keep_data=False)


def test_wrong_settings_stop_everything_before_it_starts(project: Project) -> None:
    project.settings.write_text("config:\n  marketlake:prots: {}\n")
    for command in (up, preview, refresh):
        with pytest.raises(InvalidSettingsError, match="Did you mean ports"):
            command(project.stack)
    assert not project.stack.workspace.backend.exists()


def test_settings_of_another_file_serve_a_throw_away_stack(project: Project) -> None:
    config = project.folder / "Pulumi.other.yaml"
    config.write_text(SETTINGS)
    blue = project.stack
    red = Stack("red", blue.workspace, blue.console, config)
    up(red, collect=False)
    assert project.note.exists()
    assert config.read_text() == SETTINGS
    assert not blue.workspace.settings_file("red").exists()
    down(red, keep_data=False)
    assert not project.note.exists()


def test_what_stays_after_a_destruction_is_an_error_that_names_it(project: Project) -> None:
    folder = project.folder / "data" / "blue"
    (folder / "logs").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(LeftoverError, match=r"notes\.txt is no file of the stack: remove it yourself"):
        down(project.stack, keep_data=False)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_the_samples_are_published_and_collected_after_the_stack_is_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(Stack, "pulumi", lambda *_, **__: None)
    monkeypatch.setattr(stack_module, "run", lambda argv, **_: ran.append(argv[1:]))
    up(project.stack)
    assert ran == [
        ["venue", "publish", "samples"],
        ["collect", "--venue", "binance", "--all"],
    ]
    ran.clear()
    project.settings.write_text(SETTINGS + "  marketlake:venue: {endpoint: 'https://example.com'}\n")
    up(project.stack)
    assert ran == [["venue", "publish", "samples"]], "a public archive is not collected whole"
