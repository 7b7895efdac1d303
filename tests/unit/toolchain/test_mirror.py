"""A mirror is a folder or URL with NAME-vVERSION-OS-ARCH.tar.gz files and SHA256SUMS."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.toolchain.conftest import Site, make_tar, mirrored, sample_bom, sha256
from toolchain.bom import Tool
from toolchain.errors import ChecksumMismatchError, SourceUnavailableError
from toolchain.sources import Workshop
from toolchain.sources.mirror import from_mirror, offers

NAME = "sample-v1.2.3-linux-amd64.tar.gz"


@pytest.fixture
def sample(recipes: Path) -> Tool:
    return sample_bom(recipes=recipes).tool("sample")


@pytest.fixture
def mirror(sample: Tool, tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    put(folder, mirrored(sample))
    return folder


def put(folder: Path, archive: bytes) -> None:
    (folder / NAME).write_bytes(archive)
    (folder / "SHA256SUMS").write_text(f"{sha256(archive)}  {NAME}\n")


def test_a_folder_gives_the_tool_and_tells_what_its_maker_knew(
    sample: Tool, mirror: Path, staging: Path, workshop: Workshop
) -> None:
    put(mirror, mirrored(sample, version="1.2", note="a stand-in", root="inner"))
    origin = from_mirror(sample, staging, replace(workshop, mirror=str(mirror)))
    assert (staging / "bin/sample").read_bytes() == b"program"
    assert origin.location == str(mirror / NAME)
    assert (origin.checksum, origin.verified) == ("sha256:jars", "every jar against jars.lock")
    assert (origin.version, origin.note) == ("1.2", "a stand-in")
    assert origin.copied is not None
    assert (origin.copied.source, origin.copied.root) == ("registry", "inner")


def test_a_url_gives_the_tool(sample: Tool, site: Site, staging: Path, workshop: Workshop) -> None:
    archive = mirrored(sample)
    site.files = {f"/m/{NAME}": archive, "/m/SHA256SUMS": f"{sha256(archive)} *{NAME}\n".encode()}
    origin = from_mirror(sample, staging, replace(workshop, mirror=f"{site.url}/m/"))
    assert (staging / "bin/sample").read_bytes() == b"program"
    assert origin.location == f"{site.url}/m/{NAME}"


def test_without_a_mirror_the_variable_is_named(sample: Tool, staging: Path, workshop: Workshop) -> None:
    with pytest.raises(SourceUnavailableError, match="MARKETLAKE_TOOL_MIRROR is not set"):
        from_mirror(sample, staging, workshop)


def test_a_mirror_without_the_tool_says_which_file_is_missing(
    sample: Tool, mirror: Path, staging: Path, workshop: Workshop
) -> None:
    (mirror / "SHA256SUMS").write_text(f"{sha256(b'')}  other-v1-linux-amd64.tar.gz\n")
    with pytest.raises(SourceUnavailableError, match=f"lists no {NAME} in its SHA256SUMS"):
        from_mirror(sample, staging, replace(workshop, mirror=str(mirror)))


def test_a_changed_archive_is_refused(sample: Tool, mirror: Path, staging: Path, workshop: Workshop) -> None:
    (mirror / NAME).write_bytes(mirrored(sample, b"evil"))
    with pytest.raises(ChecksumMismatchError, match=rf"{NAME} has sha256:.*SHA256SUMS beside it says"):
        from_mirror(sample, staging, replace(workshop, mirror=str(mirror)))
    assert not (staging / "bin").exists()


@pytest.mark.parametrize(
    "members", [{"bin/sample": b"program"}, {"receipt.json": b"{}"}, {"receipt.json": b"no JSON"}]
)
def test_an_archive_without_a_receipt_is_refused(
    members: dict[str, bytes | None], sample: Tool, mirror: Path, staging: Path, workshop: Workshop
) -> None:
    put(mirror, make_tar(members, mode="w:gz"))
    with pytest.raises(SourceUnavailableError, match=r"no receipt\.json of sample: it was not written by"):
        from_mirror(sample, staging, replace(workshop, mirror=str(mirror)))


def test_an_archive_of_another_tool_is_refused(
    sample: Tool, mirror: Path, staging: Path, workshop: Workshop
) -> None:
    put(mirror, mirrored(sample, name="other"))
    with pytest.raises(SourceUnavailableError, match=r"no receipt\.json of sample"):
        from_mirror(sample, staging, replace(workshop, mirror=str(mirror)))


def test_a_mirror_that_is_no_mirror_is_told(
    sample: Tool, tmp_path: Path, staging: Path, workshop: Workshop
) -> None:
    with pytest.raises(SourceUnavailableError, match=r"cannot read .*SHA256SUMS: No such file"):
        from_mirror(sample, staging, replace(workshop, mirror=str(tmp_path / "nowhere")))


def test_a_listed_archive_that_is_not_there_is_told(
    sample: Tool, mirror: Path, staging: Path, workshop: Workshop
) -> None:
    (mirror / NAME).unlink()
    with pytest.raises(SourceUnavailableError, match=f"cannot read .*{NAME}: No such file"):
        from_mirror(sample, staging, replace(workshop, mirror=str(mirror)))


def test_a_mirror_that_cannot_be_read_offers_nothing(sample: Tool, mirror: Path, workshop: Workshop) -> None:
    assert offers(str(mirror), sample, workshop.platform, workshop.fetcher)
    assert not offers(str(mirror / "nowhere"), sample, workshop.platform, workshop.fetcher)
    assert not offers(None, sample, workshop.platform, workshop.fetcher)
