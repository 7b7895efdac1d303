"""Pulumi's command line with the language host that is installed: programs, policy packs, packages, and their end."""

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from stacks.engine.process import Ended, finish
from stacks.engine.workspace import PROJECT_FOLDER, Workspace
from toolchain import locate

MARK = "MARKETLAKE_TEST_RUN"
PROJECT = """
name: tried
runtime: {{name: python, options: {{toolchain: pip, virtualenv: {venv}}}}}
"""
PROGRAM = """
import json, time
from pathlib import Path
import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider, UpdateResult

wanted = json.loads(Path("wanted.json").read_text())


class NoteProvider(ResourceProvider):
    def create(self, props):
        import time
        from pathlib import Path
        Path(props["path"] + ".begun").touch()
        while props["waits"]:
            time.sleep(0.1)
        Path(props["path"]).write_text(props["text"])
        return CreateResult(props["path"], props)

    def update(self, _id, old, props):
        from pathlib import Path
        Path(props["path"]).write_text(props["text"])
        return UpdateResult(props)

    def delete(self, _id, props):
        from pathlib import Path
        Path(props["path"]).unlink()


class Note(Resource):
    def __init__(self, name, **props):
        super().__init__(NoteProvider(), name, props)


config = pulumi.Config()
print("the program speaks")
if wanted.get("fails") == "told":
    raise pulumi.RunError("the user is told")
if wanted.get("fails"):
    raise ValueError("a mistake in the program")
note = Note("note", path=wanted["path"], text=wanted["text"], waits=wanted.get("waits", False))
pulumi.export("text", note.text)
pulumi.export("password", config.get_secret("password"))
while wanted.get("program waits"):
    Path(wanted["path"] + ".begun").touch()
    time.sleep(0.1)
"""
PACK = """
from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationPolicy


def no_shouting(args, report):
    if str(args.props.get("text", "")).isupper():
        report("write it in lower case")


PolicyPack("quiet", policies=[ResourceValidationPolicy(
    name="no-shouting", description="Nobody shouts.", validate=no_shouting,
    enforcement_level=EnforcementLevel.MANDATORY,
)])
"""
UP = ("up", "--yes", "--skip-preview")
PROVIDERS = ("pulumi.dynamic", "pulumi-resource-pulumi-python")
PROVIDER_DEAD_S = 60
"""Within which everything that a killed command had started is gone."""


@dataclass(frozen=True)
class Project:
    """A project of one note, with a state of its own."""

    folder: Path
    workspace: Workspace
    run: str
    """Marks the processes of its commands."""

    @property
    def note(self) -> Path:
        return self.folder / "note"

    @property
    def variables(self) -> Mapping[str, str]:
        return self.workspace.environment() | {MARK: self.run}

    def want(self, text: str = "quietly", **more: object) -> None:
        wanted = {"path": str(self.note), "text": text, **more}
        (self.folder / "wanted.json").write_text(json.dumps(wanted))

    def pulumi(self, *argv: str) -> Ended:
        """A command that may fail."""
        return finish(["pulumi", *argv, "--color=never"], env=dict(self.variables), cwd=self.folder)

    def done(self, *argv: str) -> str:
        """What a command prints that has to succeed."""
        ended = self.pulumi(*argv)
        assert ended.code == 0, ended.out + ended.errors
        return ended.out

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.run and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def await_none(self, seconds: float, *, but: Sequence[str] = ()) -> None:
        end = time.monotonic() + seconds
        while left := [told for told in self.commands() if not any(name in told for name in but)]:
            assert time.monotonic() < end, left
            time.sleep(0.2)

    def commands(self) -> list[str]:
        """What each process was started with."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                found.append(" ".join(process.cmdline()))
        return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text(PROJECT.format(venv=sys.prefix))
    (folder / "__main__.py").write_text(PROGRAM)
    workspace = Workspace(folder, tmp_path / "config", tmp_path / "state")
    workspace.prepare()
    made = Project(folder, workspace, uuid.uuid4().hex)
    made.want()
    made.done("stack", "init", "test")
    return made


def test_a_program_is_previewed_brought_up_refreshed_changed_and_destroyed(project: Project) -> None:
    project.done("config", "set", "--secret", "password", "hunter2")
    assert "the program speaks" in project.done("preview")
    assert not project.note.exists()
    told = project.pulumi(*UP)
    assert told.code == 0, told.out + told.errors
    assert "the program speaks" in told.out
    assert "$PATH" not in told.out + told.errors, "the host lies where the command line expects it"
    assert project.note.read_text() == "quietly"
    state = project.done("stack", "export")
    assert "quietly" in state
    assert "hunter2" not in state
    project.want("and quieter")
    project.done(*UP, "--refresh")
    assert project.note.read_text() == "and quieter"
    project.done("destroy", "--yes", "--skip-preview")
    assert not project.note.exists()
    project.await_none(10)


def test_a_mistake_in_a_program_is_told_with_its_place_and_no_more(project: Project) -> None:
    project.want(fails="badly")
    mistake = project.pulumi("preview")
    assert mistake.code != 0
    assert "ValueError: a mistake in the program" in mistake.out
    assert "exit code" not in mistake.out
    project.want(fails="told")
    told = project.pulumi("preview")
    assert told.code != 0
    assert "the user is told" in told.out
    assert "Traceback" not in told.out


def test_a_missing_virtual_environment_is_told_before_anything_happens(project: Project) -> None:
    (project.folder / "Pulumi.yaml").write_text(PROJECT.format(venv="gone"))
    told = project.pulumi("preview")
    assert told.code != 0
    assert f"{project.folder}/gone" in told.out + told.errors
    assert "exist" in told.out + told.errors


def test_a_policy_pack_passes_and_stops_what_it_forbids(project: Project) -> None:
    pack = project.folder.parent / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text(
        PROJECT.format(venv=sys.prefix).replace("name: tried", "name: quiet")
    )
    (pack / "__main__.py").write_text(PACK)
    assert "quiet" in project.done(*UP, "--policy-pack", str(pack))
    project.want("LOUDLY")
    stopped = project.pulumi(*UP, "--policy-pack", str(pack))
    assert stopped.code != 0
    assert "write it in lower case" in stopped.out
    assert project.note.read_text() == "quietly"
    project.await_none(10)


def test_the_components_are_a_package_with_a_schema(tmp_path: Path) -> None:
    if not (locate("pulumi-language-python").root / "lib" / "toolchain").exists():
        pytest.skip(
            "Pulumi's own host would upgrade pip, setuptools and wheel in the environment of these tests first"
        )
    workspace = Workspace(tmp_path, tmp_path / "config", tmp_path / "state")
    workspace.prepare()
    done = finish(
        ["pulumi", "package", "get-schema", str(PROJECT_FOLDER / "components")],
        env=workspace.environment(),
        cwd=tmp_path,
    )
    assert done.code == 0, done.errors
    schema = json.loads(done.out)
    assert schema["name"] == "marketlake"
    assert "marketlake:index:Database" in schema["resources"]


@pytest.mark.parametrize(
    ("number", "waiting"),
    [
        (signal.SIGINT, "waits"),
        (signal.SIGINT, "program waits"),
        (signal.SIGTERM, "program waits"),
        (signal.SIGKILL, "program waits"),
    ],
    ids=["interrupted while a resource is made", "interrupted", "terminated", "killed"],
)
def test_an_interrupted_or_killed_command_leaves_no_process(
    number: signal.Signals, waiting: str, project: Project
) -> None:
    project.want(**{waiting: True})
    up = subprocess.Popen(
        ["pulumi", *UP],
        env=dict(project.variables),
        cwd=project.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        begun = Path(f"{project.note}.begun")
        end = time.monotonic() + 120
        while not begun.exists():
            assert time.monotonic() < end
            assert up.poll() is None
            time.sleep(0.1)
        started = len(project.processes())
        assert started >= 3, "the command, the host and the program"
        up.send_signal(number)
        if number is not signal.SIGKILL:
            time.sleep(2)
            up.send_signal(
                number
            )  # the first asks resources that are being created to end, the second ends them
        up.wait(PROVIDER_DEAD_S)
        # The SDK's dynamic providers do not notice a killed engine; those of the components do: see test_lifecycle.py.
        project.await_none(PROVIDER_DEAD_S, but=PROVIDERS if number is signal.SIGKILL else ())
    finally:
        for process in project.processes():
            process.kill()
        up.wait()
