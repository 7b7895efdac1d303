"""Published lists of checksums come in several forms; each must give the right digest or none."""

from pathlib import Path

import pytest

from toolchain.checksums import Digest, file_digest, find_digest

HEX = "ab" * 32
OTHER = "cd" * 32


@pytest.mark.parametrize(
    "text",
    [
        f"{OTHER}  other.tar.gz\n{HEX}  tool.tar.gz\n",
        f"{HEX} *tool.tar.gz\n",
        f"{HEX}  ./release/tool.tar.gz\n",
        f"{HEX.upper()}  tool.tar.gz\n",
        f"{HEX}\n",
    ],
    ids=["sha256sum", "binary marker", "with folder", "upper case", "digest alone"],
)
def test_the_digest_of_a_file_is_found(text: str) -> None:
    assert find_digest(text, "tool.tar.gz") == Digest("sha256", HEX)


def test_apaches_wrapped_sha512_is_understood() -> None:
    groups = " ".join(["ABCD"] * 16)
    text = f"kafka.tgz: {groups}\n           {groups}\n"
    assert find_digest(text, "kafka.tgz") == Digest("sha512", "abcd" * 32)


@pytest.mark.parametrize(
    "text", ["", f"{HEX}  other.tar.gz\n", "not-hex  tool.tar.gz", f"other.tgz: {HEX}", "<html>"]
)
def test_a_list_that_does_not_name_the_file_gives_none(text: str) -> None:
    assert find_digest(text, "tool.tar.gz") is None


def test_the_digest_of_a_file_is_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert str(file_digest(path)) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert file_digest(path, "sha512").algorithm == "sha512"
