"""What the Makefile's commands tell, and the exit codes that they end with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from marketlake.settings import SettingsError
from typer.testing import CliRunner

from stacks import cli
from stacks.commands.down import LeftoverError
from stacks.commands.stack import LockedError, Stack
from stacks.engine.process import InterruptError, ProgramError
from stacks.engine.workspace import PassphraseLostError
from stacks.preflight.capacity import CapacityError
from stacks.settings.validation import InvalidSettingsError
from toolchain import ToolMissingError

Invoke = Callable[..., Any]


@pytest.fixture
def invoke() -> Invoke:
    return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, Any]]]:
    """What is asked of stacks, instead of doing it."""
    calls: list[tuple[str, str, dict[str, Any]]] = []
    for command in ("up", "preview", "refresh", "down"):

        def record(stack: Stack, command: str = command, **options: Any) -> None:
            calls.append((command, stack.name, options))

        monkeypatch.setattr(cli, f"run_{command}", record)
    return calls


def test_each_command_acts_on_the_environment_that_is_named(invoke: Invoke, calls: list[Any]) -> None:
    for arguments in (
        ("up",),
        ("up", "--env", "blue", "--no-collect"),
        ("preview",),
        ("refresh",),
        ("down", "--data", "keep"),
    ):
        assert invoke(*arguments).exit_code == 0
    assert calls == [
        ("up", "local", {"collect": True}),
        ("up", "blue", {"collect": False}),
        ("preview", "local", {}),
        ("refresh", "local", {}),
        ("down", "local", {"keep_data": True}),
    ]


@pytest.mark.parametrize("name", ["../x", "Blue", "", "a b", "-x"])
def test_a_name_that_could_be_a_path_is_refused(invoke: Invoke, calls: list[Any], name: str) -> None:
    result = invoke("up", f"--env={name}")
    assert result.exit_code == cli.USAGE
    assert "is not a name of an environment" in result.output
    assert calls == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InvalidSettingsError("f.yaml", ["marketlake:x: unknown key"]), 2, "f.yaml is not valid"),
        (ProgramError("marketlake collect", 3), 3, "`marketlake collect` ended with exit code 3"),
        (ProgramError("pulumi up", -9), 1, "goes on from there"),
        (InterruptError(), 130, "interrupted: the same command goes on from here"),
        (LockedError("is being changed"), 1, "is being changed"),
        (LeftoverError("port 1"), 1, "port 1"),
        (CapacityError("too small"), 1, "too small"),
        (PassphraseLostError("gone"), 1, "gone"),
        (SettingsError("no platform file"), 1, "no platform file"),
        (ToolMissingError("pulumi 3 is not installed"), 1, "pulumi 3 is not installed"),
    ],
)
def test_what_can_go_wrong_is_one_message_and_an_exit_code(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, message: str
) -> None:
    def fail(_: Stack) -> None:
        raise error

    monkeypatch.setattr(cli, "run_preview", fail)
    result = invoke("preview")
    assert result.exit_code == code
    assert message in result.output
    assert "Traceback" not in result.output


def test_validation_needs_neither_tools_nor_servers(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("MARKETLAKE_CACHE", str(tmp_path / "empty"))
    assert invoke("validate").exit_code == 0
    wrong = tmp_path / "Pulumi.x.yaml"
    wrong.write_text("config:\n  marketlake:ports:\n    objectstore: 9000\n")
    result = invoke("validate", "--env", "x", "--config-file", str(wrong))
    assert result.exit_code == 2
    assert "marketlake:ports.objectstore: unknown key. Did you mean objectStore?" in result.output
    assert invoke("validate", "--env", "no-such").exit_code == 2


def test_exports_go_to_the_shell_and_nothing_else_does(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stack, "exports", lambda _: "export A=b")
    result = invoke("env")
    assert (result.exit_code, result.stdout) == (0, "export A=b\n")


def test_the_reference_is_written_where_it_is_committed(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, False])
    monkeypatch.setattr(cli, "write_reference", lambda: next(answers))
    monkeypatch.setattr(cli, "write_page", lambda *_: False)
    assert "docs/reference/settings.md: written" in invoke("reference").output
    assert "docs/reference/settings.md: up to date" in invoke("reference").output
