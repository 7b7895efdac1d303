"""What is written before a program starts, and what is left of it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components.supervision import installation
from components.supervision.accounts import Account, AccountError
from components.supervision.installation import (
    InstallationError,
    inherited_environment,
    install,
    installed_differs,
    run_setup,
    uninstall,
)
from components.supervision.program import HostProgram, SetupCommand

Make = Callable[..., HostProgram]


def test_files_are_written_once_and_a_change_is_told(program: Make) -> None:
    first = program(port=1)
    assert install(first)
    assert not install(first)
    assert not installed_differs(first)
    changed = first.model_copy(update={"files": {"plain.conf": "a = 2\n"}})
    assert installed_differs(changed)
    assert install(changed)


def test_every_file_is_private(program: Make, folder: Path) -> None:
    install(program())
    for path in (folder / "services" / "web").iterdir():
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_removed_file_is_a_difference(program: Make) -> None:
    web = program()
    install(web)
    web.stack.file("web", "secret.conf").unlink()
    assert installed_differs(web)


def test_the_order_of_variables_is_no_difference(program: Make) -> None:
    install(program(port=1, environment={"A": "1", "B": "2"}))
    assert not installed_differs(program(port=1, environment={"B": "2", "A": "1"}))


def test_variables_arrive_whatever_is_in_them(program: Make) -> None:
    value = 'it\'s 100 % "fine"; $HOME `id` \\ é'
    web = program(
        environment={"GREETING": value},
        argv=(sys.executable, "-c", "import os; print(os.environ['GREETING'])"),
    )
    install(web)
    done = subprocess.run(
        ["/bin/sh", "run"], cwd=web.stack.service("web"), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == value


def test_the_environment_of_whoever_deploys_stays_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "geheim")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    assert "geheim" not in inherited_environment().values()
    assert "PATH" in inherited_environment()


def test_a_full_disk_is_told_before_anything_starts(program: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 2**20))  # type: ignore[attr-defined]
    with pytest.raises(InstallationError, match=r"web needs 64 MiB for its data, and .* has 1 MiB free"):
        install(program(volumes={"data": 64}))


def test_room_is_asked_for_new_volumes_only(program: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    web = program()
    install(web)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))  # type: ignore[attr-defined]
    assert not install(web)


def test_a_folder_that_cannot_be_written_is_named(program: Make, folder: Path) -> None:
    (folder / "services").write_text("in the way")
    with pytest.raises(InstallationError, match=r"web: cannot write below .*MARKETLAKE_HOME"):
        install(program())


def test_the_account_is_asked_whether_it_gets_there(program: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise AccountError("closed")

    monkeypatch.setattr(installation, "unprivileged", lambda: Account(name="a", uid=1, gid=1))
    monkeypatch.setattr(installation, "require_passage", closed)
    with pytest.raises(AccountError, match="closed"):
        install(program(unprivileged=True))


def command(code: str, **changes: object) -> SetupCommand:
    return SetupCommand.model_validate({"name": "set it up", "argv": (sys.executable, "-c", code), **changes})


def test_set_up_runs_once_where_its_result_is_there(program: Make, folder: Path) -> None:
    made = folder / "data" / "web" / "data" / "made"
    code = f"import pathlib; p = pathlib.Path({str(made)!r} + '.part'); p.mkdir(); (p / 'x').touch()"
    web = program(setup=(command(code, creates=str(made), staged=True),))
    install(web)
    run_setup(web)
    inode = made.stat().st_ino
    run_setup(web)
    assert made.stat().st_ino == inode


def test_an_interrupted_set_up_starts_afresh(program: Make, folder: Path) -> None:
    made = folder / "data" / "web" / "data" / "made"
    code = f"import pathlib; p = pathlib.Path({str(made)!r} + '.part'); p.mkdir()"
    web = program(setup=(command(code, creates=str(made), staged=True),))
    install(web)
    (made.with_name("made.part")).mkdir(parents=True)
    run_setup(web)
    assert made.is_dir()
    assert not made.with_name("made.part").exists()


def test_set_up_reads_its_file_and_knows_the_services_variables(program: Make, folder: Path) -> None:
    out = folder / "out"
    code = f"import os, sys; open({str(out)!r}, 'w').write(sys.stdin.read() + os.environ['PASSWORD'])"
    web = program(setup=(command(code, stdin=str(folder / "services" / "web" / "plain.conf")),))
    install(web)
    run_setup(web)
    assert out.read_text() == "a = 1\nhunter2-secret"
    assert out.stat().st_mode & 0o077 == 0


def test_a_failed_set_up_quotes_what_was_written_but_no_secret(program: Make) -> None:
    web = program(setup=(command("import os, sys; print('bad', os.environ['PASSWORD']); sys.exit(4)"),))
    install(web)
    with pytest.raises(InstallationError, match=r"could not set it up: .* status 4") as caught:
        run_setup(web)
    assert "bad [secret]" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_program_that_is_not_there_is_told(program: Make) -> None:
    web = program(setup=(SetupCommand(name="set it up", argv=("/no/such/program",)),))
    install(web)
    with pytest.raises(InstallationError, match=r"could not set it up: .*No such file"):
        run_setup(web)


@pytest.mark.parametrize("kept", [True, False])
def test_uninstalling_leaves_data_only_if_it_is_to_be_kept(program: Make, folder: Path, kept: bool) -> None:
    web = program(tool_copies={str(folder / "tools" / "t-1"): str(Path(__file__).parent)})
    install(web)
    for log in ("web.log", "web.log.1", "web-0.log", "website.log", "web-site.log"):
        (folder / "logs" / log).touch()
    uninstall(web.stack, web.name, tool_copies=web.tool_copies, keep_data=kept)
    assert (folder / "data" / "web").exists() is kept
    assert not (folder / "services" / "web").exists()
    assert not (folder / "tools" / "t-1").exists()
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["web-site.log", "website.log"]
