"""Vendors pack their releases in different ways; nothing may be written outside of the tool's folder."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.unit.toolchain.conftest import make_tar
from toolchain.archive import unpack
from toolchain.bom import Layout
from toolchain.errors import SourceUnavailableError


def archive(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "tool.tar.xz"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_picks_go_where_the_layout_says(tmp_path: Path, staging: Path, mode: str) -> None:
    path = archive(tmp_path, make_tar({"pulumi/pulumi": b"cli", "pulumi/other": b"x"}, mode))
    unpack(path, Layout(strip=1, pick={"pulumi": "bin/pulumi"}), staging)
    assert (staging / "bin/pulumi").read_bytes() == b"cli"
    assert [p.name for p in staging.rglob("*") if p.is_file()] == ["pulumi"]


def test_a_pick_may_be_a_pattern(tmp_path: Path, staging: Path) -> None:
    path = archive(tmp_path, make_tar({"jaeger-2.13.0-linux-amd64/jaeger": b"j"}))
    unpack(path, Layout(pick={"*/jaeger": "bin/jaeger"}), staging)
    assert (staging / "bin/jaeger").read_bytes() == b"j"


def test_without_picks_the_whole_tree_comes_with_its_links_and_modes(tmp_path: Path, staging: Path) -> None:
    buffer = io.BytesIO(
        make_tar({"kafka/libs": None, "kafka/libs/a-1.jar": b"jar", "./kafka/bin/run": b"#!"}, "w")
    )
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        link = tarfile.TarInfo("kafka/libs/a.jar")
        link.type, link.linkname = tarfile.SYMTYPE, "a-1.jar"
        tar.addfile(link)
    unpack(archive(tmp_path, buffer.getvalue()), Layout(strip=1), staging)
    assert (staging / "libs/a.jar").read_bytes() == b"jar"
    assert (staging / "libs/a.jar").is_symlink()
    assert (staging / "bin/run").stat().st_mode & 0o111


def test_a_file_that_is_no_program_gets_no_execute_bit(tmp_path: Path, staging: Path) -> None:
    unpack(archive(tmp_path, make_tar({"notes": b"n"}, executable=False)), Layout(), staging)
    assert not (staging / "notes").stat().st_mode & 0o111


def test_a_pick_that_matches_nothing_says_that_the_layout_changed(tmp_path: Path, staging: Path) -> None:
    path = archive(tmp_path, make_tar({"elsewhere/tool": b"x"}))
    with pytest.raises(SourceUnavailableError, match=r"nothing that matches bin/tool: its layout is not"):
        unpack(path, Layout(pick={"bin/tool": "bin/tool"}), staging)


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/outside"])
def test_a_member_that_points_outside_is_refused(tmp_path: Path, staging: Path, name: str) -> None:
    with pytest.raises(SourceUnavailableError, match="outside of the tool's folder"):
        unpack(archive(tmp_path, make_tar({name: b"x"})), Layout(), staging)
    assert not (tmp_path / "outside").exists()


def test_a_link_that_points_outside_is_refused(tmp_path: Path, staging: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("libs")
        link.type, link.linkname = tarfile.SYMTYPE, "../../elsewhere"
        tar.addfile(link)
    with pytest.raises(SourceUnavailableError, match="libs in the archive points outside"):
        unpack(archive(tmp_path, buffer.getvalue()), Layout(), staging)


def test_a_device_in_an_archive_is_refused(tmp_path: Path, staging: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        pipe = tarfile.TarInfo("pipe")
        pipe.type = tarfile.FIFOTYPE
        tar.addfile(pipe)
    with pytest.raises(SourceUnavailableError, match="neither a file, a folder nor a link"):
        unpack(archive(tmp_path, buffer.getvalue()), Layout(), staging)


@pytest.mark.parametrize(
    "content", [b"<html>blocked</html>", b"", make_tar({"tool": os.urandom(9999)})[:5000]]
)
def test_what_is_no_whole_archive_is_named(tmp_path: Path, staging: Path, content: bytes) -> None:
    with pytest.raises(SourceUnavailableError, match=r"tool\.tar\.xz is no readable archive"):
        unpack(archive(tmp_path, content), Layout(), staging)


def test_a_full_disk_is_no_fault_of_the_archive(
    tmp_path: Path, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("toolchain.archive.shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(archive(tmp_path, make_tar({"tool": b"x"})), Layout(), staging)
