"""The same content gives the same bytes, wherever and whenever it is written."""

import os
import socket
import tarfile
from pathlib import Path

import pytest

from toolchain.images.errors import ImageError
from toolchain.images.layer import EPOCH, Member, add_blob, folder, link, program, tree, write_layer
from toolchain.images.store import Store


def content(folder: Path, *, when: float, mode: int) -> Path:
    """A folder with everything that a layer can hold; its times and modes are the machine's."""
    (folder / "bin").mkdir(parents=True)
    (folder / "share" / "empty").mkdir(parents=True)
    for name, text, executable in (("bin/tool", "#!/bin/sh\n", True), ("share/words", "ä\n", False)):
        (folder / name).write_text(text)
        (folder / name).chmod(mode | 0o111 if executable else mode)
        os.utime(folder / name, (when, when))
    (folder / "bin" / "alias").symlink_to("tool")
    (folder / "lib").symlink_to("share", target_is_directory=True)
    return folder


def test_neither_folder_nor_time_nor_umask_changes_the_digest(tmp_path: Path) -> None:
    made = [
        write_layer(
            Store(tmp_path / name / "store"),
            dict(tree(content(tmp_path / name / "tool", when=when, mode=mode), "opt/tool")),
            "a tool",
        )
        for name, when, mode in (("one", 1_000_000_000, 0o600), ("two", 1_700_000_000, 0o664))
    ]
    assert made[0] == made[1]


def test_members_are_roots_sorted_and_of_one_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    layer = write_layer(
        store,
        {"tmp": folder(0o1777), "opt/b": Member(b"b"), "opt/a": program(b"a"), "opt/c": link("a")},
        "mixed",
    )
    with tarfile.open(store.blob(layer.digest)) as tar:
        members = tar.getmembers()
    assert [(each.name, oct(each.mode)) for each in members] == [
        ("opt", "0o755"),
        ("opt/a", "0o755"),
        ("opt/b", "0o644"),
        ("opt/c", "0o777"),
        ("tmp", "0o1777"),
    ]
    assert {(each.uid, each.gid, each.uname, each.gname, each.mtime) for each in members} == {
        (0, 0, "", "", EPOCH)
    }
    assert store.blob(layer.digest).stat().st_size == layer.size


def test_a_long_or_foreign_name_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = "opt/" + "ä" * 90 + "/" + "x" * 120
    layer = write_layer(store, {path: Member(b"")}, "long")
    with tarfile.open(store.blob(layer.digest)) as tar:
        assert path in tar.getnames()


def test_links_are_kept_as_links(tmp_path: Path) -> None:
    members = dict(tree(content(tmp_path / "tool", when=0, mode=0o644), "opt/tool"))
    assert members["opt/tool/bin/alias"] == link("tool")
    assert members["opt/tool/lib"] == link("share")
    assert "opt/tool/lib/words" not in members


def test_what_no_image_can_hold_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(ImageError, match="neither file, folder nor link"):
            dict(tree(tmp_path, "opt"))


def test_a_blob_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(_file: object) -> None:
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        add_blob(store, fail)
    assert list(store.staging.iterdir()) == []
    assert not store.layout.exists()
