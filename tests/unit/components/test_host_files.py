"""Files of a stack: nobody else can read them, and they are replaced as a whole or not at all."""

import os
import pwd
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.supervision import accounts
from components.supervision.accounts import Account, AccountError, as_account, require_passage, unprivileged
from components.supervision.files import private_folder, readable_copy, remove, write_private
from components.supervision.layout import StackFolder, keep_data


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert write_private(path, "one")
    assert (mode(path), path.read_text()) == (0o600, "one")


def test_writing_the_same_again_says_so_and_closes_what_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, "one")
    path.chmod(0o644)
    before = path.stat().st_ino
    assert not write_private(path, "one")
    assert (path.stat().st_ino, mode(path)) == (before, 0o600)
    assert write_private(path, "two")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    write_private(path, "one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, "two")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_text_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"\xff\xfe\x00")
    assert write_private(path, "one")


def test_folders_and_their_missing_parents_are_private(tmp_path: Path) -> None:
    private_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_files_and_folders_get_the_owner_that_they_are_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((Path(path).suffix, uid, gid)))
    owner = Account(name="somebody", uid=7, gid=8)
    private_folder(tmp_path / "own.d", owner=owner)
    write_private(tmp_path / "file", "x", owner=owner)
    assert given == [(".d", 7, 8), (".part", 7, 8)]


def test_a_copied_tool_is_readable_by_everybody_and_complete(tmp_path: Path) -> None:
    source = tmp_path / "tool"
    (source / "bin").mkdir(parents=True, mode=0o700)
    (source / "bin" / "run").write_text("#!")
    (source / "bin" / "run").chmod(0o700)
    (source / "notes").write_text("x")
    (source / "notes").chmod(0o600)
    (source / "link").symlink_to("notes")
    left = tmp_path / "copy.part"
    left.mkdir()
    readable_copy(source, tmp_path / "copy")
    copy = tmp_path / "copy"
    assert (mode(copy / "bin"), mode(copy / "bin" / "run"), mode(copy / "notes")) == (0o755, 0o755, 0o644)
    assert (copy / "link").is_symlink()
    assert not left.exists()
    (source / "notes").write_text("changed")
    readable_copy(source, copy)
    assert (copy / "notes").read_text() == "x"


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    assert (tmp_path / "folder").exists()
    remove(tmp_path / "folder")
    remove(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "kept"), [("keep", True), ("delete", False), (None, False)])
def test_data_is_kept_only_when_that_was_said(
    monkeypatch: pytest.MonkeyPatch, value: str | None, kept: bool
) -> None:
    monkeypatch.delenv("MARKETLAKE_DATA", raising=False)
    if value:
        monkeypatch.setenv("MARKETLAKE_DATA", value)
    assert keep_data() is kept


def test_a_service_of_one_replica_logs_under_its_own_name() -> None:
    assert StackFolder(Path("/s")).log("web") == Path("/s/logs/web.log")


def test_an_ordinary_user_drops_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged() is None
    assert as_account(None) == ()


def test_root_drops_to_the_first_account_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(name: str) -> object:
        if name != "nobody":
            raise KeyError(name)
        return SimpleNamespace(pw_uid=65534, pw_gid=65534)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", known)
    account = unprivileged()
    assert account == Account(name="nobody", uid=65534, gid=65534)
    command = as_account(account)
    assert command[-2:] == ("65534", "65534")
    assert Path(command[3]).is_file()


def test_root_without_any_such_account_learns_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(accounts, "CANDIDATES", ("no-such-account-here",))
    with pytest.raises(AccountError, match="useradd --system postgres"):
        unprivileged()


def test_a_closed_folder_on_the_way_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    closed = tmp_path / "home"
    (closed / "stack").mkdir(parents=True)
    closed.chmod(0o700)
    stranger = Account(name="stranger", uid=54321, gid=54321)
    with pytest.raises(AccountError, match=r"'stranger' cannot enter.*MARKETLAKE_HOME"):
        require_passage(closed / "stack", stranger)
    assert mode(closed) == 0o700


def test_its_own_and_its_groups_folders_let_an_account_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = {"mine": (0o700, 7, 1), "ours": (0o710, 1, 8), "open": (0o711, 1, 1)}
    real = Path.stat

    def pretended(self: Path, *, follow_symlinks: bool = True) -> os.stat_result | SimpleNamespace:
        if self.name in bits:
            permissions, uid, gid = bits[self.name]
            return SimpleNamespace(st_mode=permissions, st_uid=uid, st_gid=gid)
        if self == tmp_path or self in tmp_path.parents:
            return SimpleNamespace(st_mode=0o755, st_uid=0, st_gid=0)
        return real(self, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "resolve", lambda self: self)
    monkeypatch.setattr(Path, "stat", pretended)
    account = Account(name="a", uid=7, gid=8)
    for name in bits:
        require_passage(tmp_path / name / "stack", account)
    bits["mine"] = (0o600, 7, 1)
    with pytest.raises(AccountError, match="mine"):
        require_passage(tmp_path / "mine" / "stack", account)


def test_becoming_another_account_comes_before_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, object]] = []
    monkeypatch.setattr(os, "setgroups", lambda groups: steps.append(("groups", groups)))
    monkeypatch.setattr(os, "setgid", lambda gid: steps.append(("gid", gid)))
    monkeypatch.setattr(os, "setuid", lambda uid: steps.append(("uid", uid)))
    monkeypatch.setattr(os, "execvp", lambda program, command: steps.append((program, command)))
    script = as_account(Account(name="a", uid=7, gid=8))[3]
    monkeypatch.setattr("sys.argv", [script, "7", "8", "/bin/echo", "hello"])
    runpy.run_path(script, run_name="__main__")
    assert steps == [("groups", []), ("gid", 8), ("uid", 7), ("/bin/echo", ["/bin/echo", "hello"])]
