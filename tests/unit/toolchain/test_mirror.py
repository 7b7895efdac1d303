"""A mirror is a folder or URL with NAME-vVERSION-OS-ARCH.tar.xz and SHA256SUMS."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.toolchain.conftest import Site, make_tar, sample_bom, sha256
from toolchain.errors import ChecksumMismatchError, SourceUnavailableError
from toolchain.sources import Workshop
from toolchain.sources.mirror import from_mirror, offers

NAME = "sample-v1.2.3-linux-amd64.tar.xz"
ARCHIVE = make_tar({"sample": b"program"})
SAMPLE = sample_bom().tool("sample")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / NAME).write_bytes(ARCHIVE)
    (folder / "SHA256SUMS").write_text(f"{sha256(ARCHIVE)}  {NAME}\n")
    return folder


def test_a_folder_gives_the_tool(mirror: Path, staging: Path, workshop: Workshop) -> None:
    origin = from_mirror(SAMPLE, staging, replace(workshop, mirror=str(mirror)))
    assert (staging / "bin/sample").read_bytes() == b"program"
    assert origin.location == str(mirror / NAME)
    assert origin.checksum == f"sha256:{sha256(ARCHIVE)}"
    assert origin.verified == "against the mirror's SHA256SUMS"


def test_a_url_gives_the_tool(site: Site, staging: Path, workshop: Workshop) -> None:
    site.files = {f"/m/{NAME}": ARCHIVE, "/m/SHA256SUMS": f"{sha256(ARCHIVE)} *{NAME}\n".encode()}
    origin = from_mirror(SAMPLE, staging, replace(workshop, mirror=f"{site.url}/m/"))
    assert (staging / "bin/sample").read_bytes() == b"program"
    assert origin.location == f"{site.url}/m/{NAME}"


def test_without_a_mirror_the_variable_is_named(staging: Path, workshop: Workshop) -> None:
    with pytest.raises(SourceUnavailableError, match="MARKETLAKE_TOOL_MIRROR is not set"):
        from_mirror(SAMPLE, staging, workshop)


def test_a_mirror_without_the_tool_says_which_file_it_lacks(
    mirror: Path, staging: Path, workshop: Workshop
) -> None:
    (mirror / "SHA256SUMS").write_text(f"{sha256(b'')}  other-v1-linux-amd64.tar.xz\n")
    with pytest.raises(SourceUnavailableError, match=f"lists no {NAME} in its SHA256SUMS"):
        from_mirror(SAMPLE, staging, replace(workshop, mirror=str(mirror)))


def test_a_changed_archive_is_refused(mirror: Path, staging: Path, workshop: Workshop) -> None:
    (mirror / NAME).write_bytes(make_tar({"sample": b"evil"}))
    with pytest.raises(ChecksumMismatchError, match=rf"{NAME} has sha256:.*SHA256SUMS beside it says"):
        from_mirror(SAMPLE, staging, replace(workshop, mirror=str(mirror)))
    assert not (staging / "bin").exists()


def test_a_mirror_that_is_no_mirror_is_told(tmp_path: Path, staging: Path, workshop: Workshop) -> None:
    with pytest.raises(SourceUnavailableError, match=r"cannot read .*SHA256SUMS: No such file"):
        from_mirror(SAMPLE, staging, replace(workshop, mirror=str(tmp_path / "nowhere")))


def test_a_listed_archive_that_is_not_there_is_told(mirror: Path, staging: Path, workshop: Workshop) -> None:
    (mirror / NAME).unlink()
    with pytest.raises(SourceUnavailableError, match=f"cannot read .*{NAME}: No such file"):
        from_mirror(SAMPLE, staging, replace(workshop, mirror=str(mirror)))


def test_a_mirror_that_cannot_be_read_offers_nothing(mirror: Path, workshop: Workshop) -> None:
    assert offers(str(mirror), SAMPLE, workshop.platform, workshop.fetcher)
    assert not offers(str(mirror / "nowhere"), SAMPLE, workshop.platform, workshop.fetcher)
    assert not offers(None, SAMPLE, workshop.platform, workshop.fetcher)
