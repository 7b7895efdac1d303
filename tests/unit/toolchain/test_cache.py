"""The cache's place can be chosen; a tool is there when its receipt is."""

from pathlib import Path

import pytest

import toolchain
from tests.unit.toolchain.conftest import PLATFORM, sample_bom
from toolchain import platforms
from toolchain.cache import Cache, locate
from toolchain.errors import ToolchainError, ToolMissingError


def test_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MARKETLAKE_CACHE", raising=False)
    assert Cache.default().folder == Path("/home/ann/.cache/marketlake")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/ann")
    assert Cache.default().folder == Path("/var/cache/ann/marketlake")
    monkeypatch.setenv("MARKETLAKE_CACHE", "~/tools")
    assert Cache.default().folder == Path("/home/ann/tools")
    monkeypatch.setenv("MARKETLAKE_CACHE", "here")
    assert Cache.default().folder == Path.cwd() / "here"


def test_a_missing_tool_says_what_to_run(cache: Cache) -> None:
    with pytest.raises(
        ToolMissingError, match=r"sample 1\.2\.3 is not installed: .*Run `marketlake tools install sample`"
    ):
        locate("sample", bom=sample_bom(), cache=cache)


@pytest.mark.parametrize("text", ["", "{", '{"name": "sample"}', '"text"'])
def test_a_broken_receipt_counts_as_missing(cache: Cache, text: str) -> None:
    tool = sample_bom().tool("sample")
    place = cache.place(tool, PLATFORM)
    place.mkdir(parents=True)
    (place / "receipt.json").write_text(text)
    assert cache.find(tool, PLATFORM) is None


def test_installing_what_is_unknown_names_what_is_known() -> None:
    with pytest.raises(ToolchainError, match="no tool is called 'nothing'"):
        toolchain.install(["nothing"])


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [
        ("Linux", "x86_64", "linux-amd64"),
        ("Linux", "aarch64", "linux-arm64"),
        ("Darwin", "arm64", "darwin-arm64"),
    ],
)
def test_the_platform_is_named_as_vendors_do(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, name: str
) -> None:
    monkeypatch.setattr(platforms.platform, "system", lambda: system)
    monkeypatch.setattr(platforms.platform, "machine", lambda: machine)
    assert str(platforms.this_platform()) == name


def test_a_machine_without_tools_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms.platform, "machine", lambda: "riscv64")
    with pytest.raises(ToolchainError, match="no tools are listed for linux on riscv64; supported are"):
        platforms.this_platform()
