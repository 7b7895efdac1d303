"""A playbook is run by Ansible itself; the outcome is reported in a few words."""

import os
import signal
import subprocess

import ansible_runner
import pytest

from playbooks import running
from playbooks.running import PlaybookError, PlaybookInterrupted, Step, run_playbook

PLAYBOOK = """
- hosts: node
  gather_facts: false
  tasks:
    - name: a file
      ansible.builtin.copy: {{content: "{{{{ word }}}}", dest: {folder}/file, mode: "0600"}}
    - name: a refusal
      ansible.builtin.assert: {{that: "{{{{ lucky }}}}", fail_msg: out of luck}}
"""


@pytest.fixture
def playbook(tmp_path, monkeypatch):
    """The name of a playbook that writes a file, and fails unless it is lucky."""
    (tmp_path / "small.yaml").write_text(PLAYBOOK.format(folder=tmp_path))
    (tmp_path / "ansible.cfg").write_text((running.FOLDER / "ansible.cfg").read_text())
    monkeypatch.setattr(running, "FOLDER", tmp_path)
    return "small"


def test_each_step_is_told_when_it_begins_and_when_it_is_done(playbook, tmp_path) -> None:
    begun: list[str] = []
    done: list[Step] = []
    variables = {"word": "written", "lucky": True}
    first = run_playbook(playbook, variables, begun=begun.append, done=done.append)
    assert (tmp_path / "file").read_text() == "written"
    assert begun == [step.name for step in done] == ["a file", "a refusal"]
    assert (first.changed, first.steps, first.failure) == (1, done, None)
    assert first.seconds >= sum(step.seconds for step in done) > 0
    second = run_playbook(playbook, variables, begun=begun.append, done=done.append)
    assert second.changed == 0


def test_after_a_playbook_signals_are_taken_as_before(playbook) -> None:
    def ours(*_):
        pass

    numbers = (signal.SIGINT, signal.SIGTERM)
    former = [signal.signal(number, ours) for number in numbers]
    try:
        variables = {"word": "", "lucky": False}
        with pytest.raises(PlaybookError):
            run_playbook(playbook, variables, begun=lambda _: None, done=lambda _: None)
        assert [signal.getsignal(number) for number in numbers] == [ours, ours]
    finally:
        for number, handler in zip(numbers, former, strict=True):
            signal.signal(number, handler)


def test_a_failure_is_the_steps_own_words(playbook) -> None:
    with pytest.raises(PlaybookError, match=r"^a refusal: out of luck$"):
        run_playbook(playbook, {"word": "", "lucky": False}, begun=lambda _: None, done=lambda _: None)


def test_what_is_no_playbook_is_told_by_ansible(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken.yaml").write_text("- hosts: node\n  roles: [missing]\n")
    (tmp_path / "ansible.cfg").write_text("")
    monkeypatch.setattr(running, "FOLDER", tmp_path)
    with pytest.raises(PlaybookError, match="'missing' was not found"):
        run_playbook("broken", {}, begun=lambda _: None, done=lambda _: None)


def test_ctrl_c_is_no_failure(playbook, monkeypatch) -> None:
    class Cancelled:
        status = "canceled"

    monkeypatch.setattr(ansible_runner, "run", lambda **_: Cancelled())
    with pytest.raises(PlaybookInterrupted):
        run_playbook(playbook, {}, begun=lambda _: None, done=lambda _: None)


def test_no_file_of_the_users_changes_what_ansible_does(monkeypatch) -> None:
    monkeypatch.setenv("ANSIBLE_CONFIG", "/home/user/ansible.cfg")
    settings = running.environment("small", "/tmp/run")
    assert settings["ANSIBLE_CONFIG"] == str(running.FOLDER / "ansible.cfg")
    assert {settings[name] for name in ("ANSIBLE_HOME", "ANSIBLE_LOCAL_TEMP")} == {"/tmp/run"}


def test_what_a_killed_run_left_at_work_is_ended_and_its_folder_removed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(running.tempfile, "gettempdir", lambda: str(tmp_path))
    left, of_another = (tmp_path / f"marketlake-playbook-{name}-x1" for name in ("mine", "other"))
    for folder in (left, of_another):
        folder.mkdir()
    name = f"mine-{os.getpid()}"
    with (
        subprocess.Popen(["sleep", "60"], env={running.MARK: name}) as mine,
        subprocess.Popen(["sleep", "60"], env={running.MARK: f"other-{os.getpid()}"}) as other,
    ):
        running.end_leftovers(name, "mine")
        mine.wait(timeout=5)
        assert other.poll() is None
        other.kill()
    assert [each.name for each in tmp_path.iterdir()] == [of_another.name]
