"""How policies run in a preview and over a state, and how a report comes about."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from stacks import cli
from stacks.commands import stack as stack_module
from stacks.commands.policy import StackMissingError, check_policies
from stacks.commands.preview import preview, preview_for_report
from stacks.commands.stack import Stack
from stacks.engine.policy_pack import levels_file, policy_arguments
from stacks.engine.process import Ended, ProgramError, finish
from stacks.engine.workspace import PROJECT_FOLDER, Workspace

SETTINGS = "config:\n  marketlake:target: host\n"


class Runs:
    """Pulumi, as far as these tests need it."""

    def __init__(self) -> None:
        self.argv: list[list[str]] = []
        self.ended = Ended(0, json.dumps({"steps": []}), "")
        self.events = ""

    def run(self, argv: list[str], *, env: dict[str, str], cwd: Path) -> None:
        self.argv.append(argv)
        if self.ended.code:
            raise ProgramError("pulumi policy", self.ended.code)

    def finish(self, argv: list[str], *, env: dict[str, str], cwd: Path) -> Ended:
        self.argv.append(argv)
        assert env["PULUMI_DEBUG_COMMANDS"] == "true", "without it there is no --event-log"
        if self.events:
            Path(argv[argv.index("--event-log") + 1]).write_text(self.events)
        return self.ended

    def read(self, argv: list[str], *, env: dict[str, str], cwd: Path) -> str:
        self.argv.append(argv)
        if "--file" in argv:
            Path(argv[argv.index("--file") + 1]).write_text("{}")
        return ""


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    for name in ("run", "finish", "read"):
        monkeypatch.setattr(stack_module, name, getattr(runs, name))
    monkeypatch.setattr(Workspace, "search_path", lambda self: [])
    return runs


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    space = Workspace(tmp_path / "project", tmp_path / "config", tmp_path / "state")
    space.settings_file("blue").parent.mkdir(parents=True)
    space.settings_file("blue").write_text(SETTINGS)
    space.state_file("blue").parent.mkdir(parents=True)
    space.state_file("blue").write_text("{}")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "pulumi-passphrase").write_text("x")
    return Stack("blue", space, Console(file=io.StringIO(), width=300))


def test_an_environments_levels_are_handed_over_if_there_are_any(tmp_path: Path) -> None:
    levels = levels_file(tmp_path / "Pulumi.blue.yaml", "blue")
    assert levels == tmp_path / "policies.blue.json"
    assert policy_arguments(levels) == ["--policy-pack", str(PROJECT_FOLDER / "policies")]
    levels.write_text("{}")
    assert policy_arguments(levels)[2:] == ["--policy-pack-config", str(levels)]


def test_a_preview_runs_the_policies(stack: Stack, runs: Runs) -> None:
    preview(stack)
    assert "--policy-pack" in runs.argv[-1]


def test_a_preview_for_a_report_holds_steps_findings_and_errors(stack: Stack, runs: Runs) -> None:
    found = {
        "policyName": "no-root",
        "enforcementLevel": "mandatory",
        "resourceUrn": "urn:x::y",
        "message": "m",
    }
    runs.events = json.dumps({"policyEvent": found})
    runs.ended = Ended(255, "", "error: no way\n")
    seen = preview_for_report(stack, refresh=True)
    assert (seen.failed, seen.errors, seen.refreshed, seen.good) == (True, "error: no way\n", True, False)
    assert [finding.rule for finding in seen.findings] == ["no-root"]
    assert "--refresh" in runs.argv[-1]


def test_the_recorded_state_is_exported_and_checked(stack: Stack, runs: Runs) -> None:
    check_policies(stack)
    export, analyse = runs.argv
    assert export[1:5] == ["stack", "export", "--stack", "blue"]
    assert "--show-secrets" not in export
    assert analyse[1:4] == ["policy", "analyze", "--file"]
    assert analyse[4] == export[-1]
    assert not Path(analyse[4]).exists(), "the copy does not stay"


def test_any_exported_state_can_be_checked(stack: Stack, runs: Runs, tmp_path: Path) -> None:
    check_policies(stack, tmp_path / "other.json")
    assert runs.argv[-1][4] == str(tmp_path / "other.json")


def test_a_stack_without_a_state_is_told(stack: Stack, runs: Runs) -> None:
    stack.workspace.state_file("blue").unlink()
    with pytest.raises(StackMissingError, match=r"no stack 'blue' whose state .*`make up ENV=blue`"):
        check_policies(stack)


@pytest.fixture
def commands(stack: Stack, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(cli, "_stack", lambda env, config_file, console=None: stack)
    return lambda *argv: CliRunner().invoke(cli.app, list(argv))


def test_the_report_is_printed_and_nothing_else_with_it(commands: Any) -> None:
    done = commands("preview-report", "--env", "blue")
    assert done.exit_code == 0
    assert done.stdout.startswith("<!-- marketlake preview: blue -->\n")


def test_the_report_of_a_bad_preview_is_written_and_the_command_fails(
    commands: Any, runs: Runs, tmp_path: Path
) -> None:
    runs.ended = Ended(255, "", "error: no way\n")
    done = commands("preview-report", "--env", "blue", "--out", str(tmp_path / "report.md"))
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "blue: the preview failed or breaks a policy: see the report" in done.stderr.replace("\n", " ")
    assert "error: no way" in (tmp_path / "report.md").read_text()


def test_a_broken_policy_over_a_state_is_exit_code_1(commands: Any, runs: Runs) -> None:
    assert commands("policy", "--env", "blue").exit_code == 0
    runs.ended = Ended(255, "", "")
    done = commands("policy", "--env", "blue")
    assert done.exit_code == 1
    assert "docs/policies.md" in done.stderr


def test_a_program_is_run_to_its_end_whether_it_succeeds_or_not(tmp_path: Path) -> None:
    ended = finish(
        ["sh", "-c", "echo out; echo err >&2; exit 7"], env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path
    )
    assert ended == Ended(7, "out\n", "err\n")
