import json
import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from stacks.engine import workspace as module
from stacks.engine.state import clean_environments, remove_salt
from stacks.engine.workspace import PassphraseLostError, Workspace
from toolchain import ToolMissingError


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "project", tmp_path / "config", tmp_path / "state")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_lies_in_the_users_own_folders_and_apart_from_all_data() -> None:
    home = Path.home()
    workspace = Workspace.of_user({})
    assert workspace.passphrase_file == home / ".config" / "marketlake" / "pulumi-passphrase"
    assert workspace.backend == home / ".local" / "state" / "marketlake" / "state"
    moved = Workspace.of_user({"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"})
    assert moved.passphrase_file == Path("/c/marketlake/pulumi-passphrase")
    assert moved.state_file("local") == Path("/s/marketlake/state/.pulumi/stacks/marketlake/local.json")
    assert (moved.project / "Pulumi.yaml").is_file()


def test_the_passphrase_is_made_once_and_for_its_owner_alone(workspace: Workspace) -> None:
    workspace.prepare()
    passphrase = workspace.passphrase_file.read_text()
    assert len(passphrase) >= 32
    assert mode(workspace.passphrase_file) == 0o600
    folders = (workspace.config_home, workspace.state_home, workspace.backend)
    assert {mode(folder) for folder in folders} == {0o700}

    workspace.passphrase_file.chmod(0o644)
    workspace.prepare()
    assert workspace.passphrase_file.read_text() == passphrase
    assert mode(workspace.passphrase_file) == 0o600
    assert [path.name for path in workspace.config_home.iterdir()] == ["pulumi-passphrase"]


def test_two_that_make_it_at_once_agree_on_one(workspace: Workspace) -> None:
    workspace.config_home.mkdir(parents=True)
    module._write_once(workspace.passphrase_file, "first")
    module._write_once(workspace.passphrase_file, "second")
    assert workspace.passphrase_file.read_text() == "first"


def test_a_lost_passphrase_is_not_replaced_while_there_is_state(workspace: Workspace) -> None:
    workspace.prepare()
    workspace.passphrase_file.unlink()
    workspace.state_file("local").parent.mkdir(parents=True)
    workspace.state_file("local").touch()
    with pytest.raises(PassphraseLostError, match=r"pulumi-passphrase is gone.* state of local in "):
        workspace.prepare()
    assert not workspace.passphrase_file.exists()


def test_a_forgotten_stack_leaves_others_alone(workspace: Workspace) -> None:
    pulumi = workspace.backend / ".pulumi"
    for stack in ("blue", "red"):
        for folder in (pulumi / "backups/marketlake" / stack, workspace.lock_folder(stack)):
            folder.mkdir(parents=True)
            (folder / "x.json").touch()
        workspace.state_file(stack).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{workspace.state_file(stack)}.bak").touch()
    workspace.forget("blue")
    left = [path for path in workspace.backend.rglob("*") if path.is_file()]
    assert len(left) == 3
    assert all("red" in str(path) for path in left)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tools in which `pulumi` tells its arguments and ends with 3."""
    folder = tmp_path / "it's tools"
    folder.mkdir()
    program = folder / "pulumi"
    program.write_text('#!/bin/sh\necho "$PULUMI_BACKEND_URL|$PULUMI_CONFIG_PASSPHRASE|$*"\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setattr(module, "locate", lambda _: None)
    monkeypatch.setattr(module, "bin_folder", lambda: folder)
    return folder


def test_pulumi_runs_with_the_pinned_tools_first_and_no_passphrase_of_somebody_else(
    workspace: Workspace, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "other")
    monkeypatch.setenv("HOME", "/home/someone")
    environment = workspace.environment()
    assert environment["PATH"].split(os.pathsep)[0] == str(tools)
    assert "PULUMI_CONFIG_PASSPHRASE" not in environment
    assert environment["HOME"] == "/home/someone"
    assert environment["PULUMI_BACKEND_URL"] == f"file://{workspace.backend}"


def test_the_exports_make_plain_pulumi_work_in_a_shell_and_pass_its_exit_code_on(
    workspace: Workspace, tools: Path
) -> None:
    settings = workspace.settings_file("local")
    settings.parent.mkdir(parents=True)
    settings.write_text("config:\n  marketlake:target: host\nencryptionsalt: v1:s\n")
    _record_salt(workspace.state_file("local"), "v1:s")
    script = f"{workspace.exports()}\npulumi up --yes 'a b'; echo code $?"
    done = subprocess.run(
        ["sh", "-c", f"eval {shlex.quote(script)}"],
        env={**os.environ, "PULUMI_CONFIG_PASSPHRASE": "other"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"file://{workspace.backend}||up --yes a b\ncode 3\n"
    assert settings.read_text() == "config:\n  marketlake:target: host\n"


def test_missing_tools_are_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MARKETLAKE_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ToolMissingError, match="make tools"):
        workspace.exports()


# ------------------------------------------------------------------------------------------------------- salt


def _record_salt(state: Path, salt: str) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    providers = {"type": "passphrase", "state": {"salt": salt}}
    state.write_text(json.dumps({"checkpoint": {"latest": {"secrets_providers": providers}}}))


SALTED = "# mine\nconfig:\n  marketlake:target: host # here\nencryptionsalt: v1:abc=:v1:d\n"


def test_the_salt_is_taken_out_and_nothing_else(tmp_path: Path) -> None:
    settings, state = tmp_path / "Pulumi.local.yaml", tmp_path / "state" / "local.json"
    settings.write_text(SALTED)
    _record_salt(state, "v1:abc=:v1:d")
    assert remove_salt(settings, state)
    assert settings.read_text() == "# mine\nconfig:\n  marketlake:target: host # here\n"
    assert not remove_salt(settings, state)


@pytest.mark.parametrize("recorded", ["v1:other", None])
def test_a_salt_that_the_state_does_not_hold_stays(tmp_path: Path, recorded: str | None) -> None:
    settings, state = tmp_path / "Pulumi.local.yaml", tmp_path / "local.json"
    settings.write_text(SALTED)
    if recorded:
        _record_salt(state, recorded)
    else:
        state.write_text('{"checkpoint": {"latest": null}}')
    assert not remove_salt(settings, state)
    assert settings.read_text() == SALTED


def test_a_salt_stays_with_the_secrets_that_it_encrypts(tmp_path: Path) -> None:
    settings, state = tmp_path / "Pulumi.local.yaml", tmp_path / "local.json"
    text = SALTED + "  marketlake:x:\n    secure: v1:abc\n"
    settings.write_text(text)
    _record_salt(state, "v1:abc=:v1:d")
    assert not remove_salt(settings, state)
    assert settings.read_text() == text


@pytest.mark.parametrize("state", ["", "{}", "[", None])
def test_without_a_state_nothing_is_touched(tmp_path: Path, state: str | None) -> None:
    settings = tmp_path / "Pulumi.local.yaml"
    settings.write_text(SALTED)
    if state is not None:
        (tmp_path / "local.json").write_text(state)
    clean_environments(tmp_path, tmp_path)
    assert settings.read_text() == SALTED
