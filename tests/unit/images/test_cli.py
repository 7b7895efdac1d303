"""The command line says what happened, and what to do where it could not."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.images.conftest import Shelf
from toolchain.images import registry
from toolchain.images.building import Building
from toolchain.images.catalogue import CATALOGUE
from toolchain.images.cli import app
from toolchain.images.containerd import Containerd
from toolchain.images.store import Built


@pytest.fixture
def run() -> CliRunner:
    return CliRunner()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARKETLAKE_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def built(cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Built]:
    """Building gives these two."""
    shelf = Shelf(cache / "images")
    images = {name: shelf.put(name, {name: shelf.layer({name: b"x"})}) for name in ("busybox", "marketlake")}

    def build(_self: Building, names: Sequence[str] | None = None) -> dict[str, Built]:
        return {name: images[name] for name in names or images}

    monkeypatch.setattr(Building, "build", build)
    return images


def test_help_is_shown(run: CliRunner) -> None:
    for words in ([], ["build"], ["load"], ["push"], ["list"], ["sbom"], ["path"]):
        assert run.invoke(app, [*words, "--help"]).exit_code == 0


def test_building_writes_bills(run: CliRunner, built: dict[str, Built], cache: Path) -> None:
    result = run.invoke(app, ["build", "busybox"])
    assert result.exit_code == 0, result.output
    assert "1 images are built." in result.output
    assert [path.name.partition("-")[0] for path in (cache / "images/sbom").iterdir()] == ["busybox"]


def test_without_a_node_nothing_is_loaded(
    run: CliRunner, built: dict[str, Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Containerd, "is_there", False)
    result = run.invoke(app, [])
    assert result.exit_code == 0, result.output
    assert "No node runs here" in result.output
    assert "make cluster" in result.output


def test_with_a_node_everything_is_loaded(
    run: CliRunner, built: dict[str, Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_self: Containerd, _store: Any, images: Mapping[str, Built], tell: Any) -> list[str]:
        tell("busybox")
        assert images == built
        return ["busybox"]

    monkeypatch.setattr(Containerd, "is_there", True)
    monkeypatch.setattr(Containerd, "load", load)
    result = run.invoke(app, [])
    assert result.exit_code == 0, result.output
    assert "1 images loaded, 1 were on the node." in result.output


def test_a_push_is_remembered(
    run: CliRunner, built: dict[str, Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "push", lambda _store, images, _where, tell: list(images)[:1])
    result = run.invoke(app, ["--registry", "r.test/a"])
    assert result.exit_code == 0, result.output
    assert "1 images pushed to r.test/a, 1 were there." in result.output
    told = json.loads(run.invoke(app, ["list", "--json"]).stdout)
    assert told["busybox"]["pushed"] == ["r.test/a"]
    listed = run.invoke(app, ["list"]).stdout
    assert "busybox 1.0: " in listed
    assert "; pushed to r.test/a" in listed


def test_a_registry_that_is_none_is_told(run: CliRunner, built: dict[str, Built]) -> None:
    result = run.invoke(app, ["push", "https://r.test"])
    assert result.exit_code == 1
    assert "HOST[:PORT][/PREFIX]" in result.output


def test_a_list_tells_what_is_not_built(run: CliRunner, cache: Path) -> None:
    assert "minio: not built; the object store" in run.invoke(app, ["list"]).stdout


@pytest.mark.parametrize(
    "words", [["load"], ["load", "busybox"], ["push", "r.test", "busybox"], ["sbom", "busybox"]]
)
def test_what_was_not_built_is_told(words: list[str], run: CliRunner, cache: Path) -> None:
    result = run.invoke(app, words)
    assert result.exit_code == 1
    assert "make images" in result.output


def test_an_unknown_image_is_told(run: CliRunner, built: dict[str, Built]) -> None:
    result = run.invoke(app, ["load", "nothing"])
    assert result.exit_code == 1
    assert "no image is called 'nothing'" in result.output


def test_a_node_that_is_not_there_is_told(run: CliRunner, built: dict[str, Built], tmp_path: Path) -> None:
    result = run.invoke(app, ["load", "--socket", str(tmp_path / "none.sock")])
    assert result.exit_code == 1
    assert "none.sock: name another with --socket" in result.output


def test_paths_are_those_that_other_programs_take(
    run: CliRunner, built: dict[str, Built], cache: Path
) -> None:
    assert run.invoke(app, ["path"]).stdout.strip() == str(cache / "images/layout")
    assert run.invoke(app, ["path", "busybox"]).stdout.strip() == f"{cache}/images/layout:busybox:1.0"


def test_a_bill_names_the_image(run: CliRunner, built: dict[str, Built]) -> None:
    told = json.loads(run.invoke(app, ["sbom", "busybox"]).stdout)
    assert told["metadata"]["component"]["name"] == "busybox"


def test_python_m_toolchain_images_is_the_same_command(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "toolchain.images", "list"],
        env={**os.environ, "MARKETLAKE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.partition(": not built; ")[0] for line in said.stdout.splitlines()] == list(CATALOGUE)
