"""Whether policies run in a preview and over a state, and how a report comes about."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from stacks import cli
from stacks.commands import stack as stack_module
from stacks.commands.policy import check_policies
from stacks.commands.preview import preview, preview_for_report
from stacks.commands.stack import Stack
from stacks.engine import policy_pack
from stacks.engine.policy_pack import PoliciesUnavailableError, levels_file, policy_arguments, why_no_policies
from stacks.engine.process import Ended, ProgramError, finish
from stacks.engine.workspace import PROJECT_FOLDER, Workspace
from toolchain import ToolMissingError

SETTINGS = "config:\n  marketlake:target: host\n"


def host(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(policy_pack, "locate", lambda name: SimpleNamespace(version=version))


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
    host(monkeypatch, "3.250.0")
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


def said(stack: Stack) -> str:
    assert isinstance(stack.console.file, io.StringIO)
    return stack.console.file.getvalue()


@pytest.mark.parametrize("version", ["3.250.0", "3.251.1", "4.0.0"])
def test_policies_run_with_the_current_language_host(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    host(monkeypatch, version)
    assert why_no_policies() == ""


def test_the_stand_in_host_cannot_run_them_and_it_is_said_how_to_get_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host(monkeypatch, "3.79.0")
    assert why_no_policies().startswith("pulumi-language-python 3.79.0 is installed, a stand-in")
    assert "marketlake tools install --again pulumi-language-python" in why_no_policies()


def test_without_a_host_the_toolchain_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ToolMissingError(f"{name} is not installed; run: make tools")

    monkeypatch.setattr(policy_pack, "locate", missing)
    assert why_no_policies() == "pulumi-language-python is not installed; run: make tools"


def test_an_environments_levels_are_handed_over_if_there_are_any(tmp_path: Path) -> None:
    levels = levels_file(tmp_path / "Pulumi.blue.yaml", "blue")
    assert levels == tmp_path / "policies.blue.json"
    assert policy_arguments(levels) == ["--policy-pack", str(PROJECT_FOLDER / "policies")]
    levels.write_text("{}")
    assert policy_arguments(levels)[2:] == ["--policy-pack-config", str(levels)]


def test_a_preview_runs_the_policies(stack: Stack, runs: Runs) -> None:
    preview(stack)
    assert "--policy-pack" in runs.argv[-1]


def test_a_preview_goes_on_without_policies_where_they_cannot_run_and_says_so(
    stack: Stack, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, "3.79.0")
    preview(stack)
    assert runs.argv[-1][1] == "preview"
    assert "--policy-pack" not in runs.argv[-1]
    assert "the policies are not run: pulumi-language-python 3.79.0" in said(stack)
    assert preview_for_report(stack).without_policies


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
    with pytest.raises(PoliciesUnavailableError, match=r"no stack 'blue' whose state .*`make up ENV=blue`"):
        check_policies(stack)


def test_checking_fails_where_policies_cannot_run(
    stack: Stack, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, "3.79.0")
    with pytest.raises(PoliciesUnavailableError, match="Policies cannot be checked: pulumi-language-python"):
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
