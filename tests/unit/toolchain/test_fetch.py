"""Downloads continue, are proven, and fail at once on a host that is away."""

import hashlib
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.unit.toolchain.conftest import Site, sha256
from toolchain.checksums import Digest
from toolchain.errors import ChecksumMismatchError, SourceUnavailableError
from toolchain.fetch import Fetcher

CONTENT = bytes(range(256)) * 400
DIGEST = Digest("sha256", sha256(CONTENT))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


def test_a_file_comes_whole_and_tells_how_far_it_is(site: Site, folder: Path) -> None:
    site.files["/tool.tgz"] = CONTENT
    told: list[str] = []
    path = Fetcher().file(f"{site.url}/tool.tgz", folder, DIGEST, told.append)
    assert path.read_bytes() == CONTENT
    assert told[-1] == "0.1 of 0.1 MB"


def test_a_file_that_is_there_is_not_downloaded_again(site: Site, folder: Path) -> None:
    site.files["/tool.tgz"] = CONTENT
    for _ in range(2):
        Fetcher().file(f"{site.url}/tool.tgz", folder, DIGEST)
    assert len(site.requests) == 1


def test_a_download_that_breaks_off_continues_where_it_stopped(site: Site, folder: Path) -> None:
    site.files["/tool.tgz"] = CONTENT
    site.break_after = [1000, 2000]
    path = Fetcher().file(f"{site.url}/tool.tgz", folder, DIGEST)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in site.requests] == [None, "bytes=1000-", "bytes=3000-"]


def test_the_part_that_a_killed_run_left_is_continued(site: Site, folder: Path) -> None:
    site.files["/tool.tgz"] = CONTENT
    site.break_after = [5000] + [0] * 9
    with pytest.raises(SourceUnavailableError, match="broke off 4 times"):
        Fetcher().file(f"{site.url}/tool.tgz", folder, DIGEST)
    site.break_after = []
    site.requests.clear()
    assert Fetcher().file(f"{site.url}/tool.tgz", folder, DIGEST).read_bytes() == CONTENT
    assert site.requests == [("/tool.tgz", "bytes=5000-")]


def test_a_server_without_ranges_starts_over(site: Site, folder: Path) -> None:
    site.files["/tool.tgz"] = CONTENT
    site.break_after = [1000]
    site.ranges = False
    assert Fetcher().file(f"{site.url}/tool.tgz", folder, DIGEST).read_bytes() == CONTENT


def test_a_part_that_was_whole_already_needs_no_more_bytes(site: Site, folder: Path) -> None:
    site.files["/tool.tgz"] = CONTENT
    folder.mkdir()
    (folder / f"{DIGEST.value[:16]}-tool.tgz.part").write_bytes(CONTENT)
    assert Fetcher().file(f"{site.url}/tool.tgz", folder, DIGEST).read_bytes() == CONTENT


def test_a_part_of_something_else_is_thrown_away_and_fetched_anew(site: Site, folder: Path) -> None:
    site.files["/tool.tgz"] = CONTENT
    folder.mkdir()
    (folder / f"{DIGEST.value[:16]}-tool.tgz.part").write_bytes(b"junk" * 10)
    assert Fetcher().file(f"{site.url}/tool.tgz", folder, DIGEST).read_bytes() == CONTENT


def test_a_wrong_digest_is_an_error_and_leaves_nothing(site: Site, folder: Path) -> None:
    site.files["/tool.tgz"] = CONTENT
    expected = Digest("sha512", hashlib.sha512(b"else").hexdigest())
    with pytest.raises(
        ChecksumMismatchError, match=r"tool\.tgz has sha512:.*, expected sha512:.* it was deleted"
    ):
        Fetcher().file(f"{site.url}/tool.tgz", folder, expected)
    assert list(folder.iterdir()) == []


def test_a_missing_file_is_told_with_its_status(site: Site) -> None:
    with pytest.raises(SourceUnavailableError, match=r"/SHA256SUMS answers with HTTP status 404"):
        Fetcher().text(f"{site.url}/SHA256SUMS")


def test_a_text_is_read(site: Site) -> None:
    site.files["/SHA256SUMS"] = b"sums"
    assert Fetcher().text(f"{site.url}/SHA256SUMS") == "sums"


def test_a_host_that_is_away_is_asked_once(folder: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
    asked = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        raise httpx.ConnectError("refused")

    fetcher = Fetcher(httpx.MockTransport(refuse))
    for _ in range(3):
        with pytest.raises(SourceUnavailableError, match=rf"{host} cannot be reached \(refused\)"):
            fetcher.text(f"http://{host}/a")
    assert len(asked) == 1
    assert fetcher.is_away(f"http://{host}/other")
    assert not fetcher.is_away("http://other.test/")


def test_a_name_look_up_that_hangs_is_given_up_soon() -> None:
    def hang(_request: httpx.Request) -> httpx.Response:
        time.sleep(2)
        return httpx.Response(200)

    began = time.monotonic()
    with pytest.raises(
        SourceUnavailableError, match=r"vendor\.test cannot be reached \(no answer within 0\.1 s\)"
    ):
        Fetcher(httpx.MockTransport(hang), connect_seconds=0.05).text("https://vendor.test/list")
    assert time.monotonic() - began < 1.5
