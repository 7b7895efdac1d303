"""Files and programs are placed whole, once, and with the rights that they should have."""

from pathlib import Path

import pytest

from playbooks.library import file_tree
from playbooks.library.file_tree import ensure, place, write
from playbooks.record import read_record, write_record


def test_a_file_is_written_once(tmp_path) -> None:
    path = tmp_path / "below" / "file"
    assert write(path, "text", 0o600) is True
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("text", 0o600)
    assert write(path, "text", 0o600) is False
    assert write(path, "other", 0o600) is True
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_rights_that_somebody_widened_are_put_back(tmp_path) -> None:
    path = tmp_path / "file"
    write(path, "text", 0o600)
    path.chmod(0o644)
    assert write(path, "text", 0o600) is True
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_program_is_placed_without_a_copy_and_survives_the_cache(tmp_path) -> None:
    program, target = tmp_path / "cache" / "etcd", tmp_path / "opt" / "etcd"
    program.parent.mkdir()
    program.write_text("first")
    assert place(program, target) is True
    assert target.stat().st_ino == program.stat().st_ino
    assert place(program, target) is False
    program.unlink()
    assert target.read_text() == "first"


def test_another_version_of_a_program_replaces_it(tmp_path) -> None:
    target = tmp_path / "etcd"
    for version in ("first", "second one"):
        program = tmp_path / version
        program.write_text(version)
        assert place(program, target) is True
        assert target.read_text() == version


def test_a_program_on_another_disk_is_copied(tmp_path, monkeypatch) -> None:
    program, target = tmp_path / "etcd", tmp_path / "opt" / "etcd"
    program.write_text("first")

    def another_disk(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", another_disk)
    assert place(program, target) is True
    assert target.read_text() == "first"
    assert target.stat().st_ino != program.stat().st_ino
    assert place(program, target) is False


def test_what_is_to_be_kept_is_written_only_where_it_is_missing(tmp_path) -> None:
    """A new key would make secrets unreadable that the former one encrypted."""
    key = str(tmp_path / "key")
    first = ensure(files={}, kept={key: "first"}, programs={}, folders=[], mode=0o600)
    second = ensure(files={}, kept={key: "second"}, programs={}, folders=[], mode=0o600)
    assert (first, second, Path(key).read_text()) == ([key], [], "first")


def test_ansible_is_told_what_changed(tmp_path, ask) -> None:
    program = tmp_path / "etcd"
    program.write_text("")
    asked = {
        "below": str(tmp_path / "etc"),
        "files": {"a.yaml": "a: 1"},
        "kept": {"key": "very secret"},
        "programs": {str(tmp_path / "opt" / "etcd"): str(program)},
        "folders": [str(tmp_path / "private")],
    }
    first = ask(file_tree, **asked)
    assert {Path(path).name for path in first["paths"]} == {"private", "a.yaml", "key", "etcd"}
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700
    assert ask(file_tree, **asked)["changed"] is False


def test_a_place_where_nothing_can_be_written_is_named(tmp_path, ask) -> None:
    (tmp_path / "file").write_text("")
    told = ask(file_tree, below=str(tmp_path / "file"), files={"a.yaml": ""})
    assert told["failed"] is True
    assert str(tmp_path / "file") in told["msg"]


def test_a_memory_is_read_as_it_was_written_and_empty_where_there_is_none(tmp_path) -> None:
    path = tmp_path / "data" / "before.json"
    assert read_record(path) == {}
    write_record(path, {"settings": {"net.ipv4.ip_forward": "0"}})
    assert read_record(path) == {"settings": {"net.ipv4.ip_forward": "0"}}
    assert [each.name for each in path.parent.iterdir()] == ["before.json"]


@pytest.mark.parametrize("given", ["0600", "0644"])
def test_rights_are_those_that_were_asked_for(tmp_path, ask, given) -> None:
    ask(file_tree, below=str(tmp_path), files={"a": "text"}, mode=given)
    assert (tmp_path / "a").stat().st_mode & 0o777 == int(given, 8)
