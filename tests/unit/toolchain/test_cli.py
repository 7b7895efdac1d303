"""`marketlake tools`: what a user types and sees."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.toolchain.conftest import mirrored, sample_bom, sha256
from toolchain import bom as bom_module
from toolchain import cli
from toolchain.cache import Cache
from toolchain.links import bin_folder
from toolchain.platforms import this_platform

run = CliRunner().invoke


@pytest.fixture(autouse=True)
def world(recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bill of materials of one tool, a mirror that has it, an empty cache."""
    bom = sample_bom(recipes=recipes)
    for module in ("toolchain.cli", "toolchain.cache", "toolchain.links", "toolchain.installation"):
        monkeypatch.setattr(f"{module}.load_bom", lambda: bom)
    archive = mirrored(bom.tool("sample"), b"#!/bin/sh\necho sampled\n", this_platform())
    name = f"sample-v1.2.3-{this_platform()}.tar.gz"
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / name).write_bytes(archive)
    (mirror / "SHA256SUMS").write_text(f"{sha256(archive)}  {name}\n")
    monkeypatch.setenv("MARKETLAKE_TOOL_MIRROR", str(mirror))
    monkeypatch.setenv("MARKETLAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return mirror


def test_tools_are_installed_listed_and_found() -> None:
    before = json.loads(run(cli.app, ["list", "--json"]).stdout)
    assert [(row["state"], row["receipt"]) for row in before] == [("not installed", None)]
    assert run(cli.app, ["list"]).stdout == "sample 1.2.3: not installed (MIT)\n"
    installed = run(cli.app, ["install"])
    assert installed.exit_code == 0
    assert "✓ sample 1.2.3 from mirror" in installed.stderr
    assert "1 tool is there." in installed.stderr
    (row,) = json.loads(run(cli.app, ["list", "--json"]).stdout)
    assert row["state"] == "installed"
    assert row["receipt"]["source"] == "registry"
    assert row["receipt"]["mirror"].endswith(".tar.gz")
    assert Path(row["executables"]["sample"]).exists()
    shown = run(cli.app, ["list"]).stdout.splitlines()
    assert shown[0] == "sample 1.2.3 from registry (MIT)"
    assert shown[1] == "    2 Maven artifacts"
    assert shown[2].startswith("    proven every jar against jars.lock; took 0.")
    assert re.fullmatch(r"    copied from /.*/sample-v1\.2\.3-.*\.tar\.gz", shown[3])


def test_an_outdated_tool_is_listed_as_such(recipes: Path) -> None:
    run(cli.app, ["install"])
    receipt = Cache.default().place(cli.load_bom().tool("sample"), this_platform()) / "receipt.json"
    values = json.loads(receipt.read_text())
    receipt.write_text(json.dumps({**values, "source_digest": "another", "note": "a stand-in"}))
    (row,) = json.loads(run(cli.app, ["list", "--json"]).stdout)
    assert row["state"] == "outdated: its recipe has changed"
    shown = run(cli.app, ["list"]).stdout.splitlines()
    assert shown[0] == "sample 1.2.3 from registry (MIT); outdated: its recipe has changed"
    assert shown[-1] == "    note: a stand-in"


def test_paths_are_printed() -> None:
    run(cli.app, ["install", "sample"])
    root = run(cli.app, ["path", "sample"]).stdout.strip()
    assert run(cli.app, ["path", "sample", "sample"]).stdout.strip() == f"{root}/bin/sample"


def test_a_program_that_a_tool_lacks_is_answered_with_those_it_has() -> None:
    run(cli.app, ["install"])
    answer = run(cli.app, ["path", "sample", "simple"])
    assert answer.exit_code == 1
    assert "sample has no program 'simple'; it has: sample" in answer.stderr


def test_a_missing_tool_is_a_message_without_a_stack_trace() -> None:
    answer = run(cli.app, ["path", "sample"])
    assert answer.exit_code == 1
    assert "sample 1.2.3 is not installed" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_tool_that_no_source_has_ends_with_one(world: Path) -> None:
    (world / "SHA256SUMS").write_text("")
    Path(os.environ["MARKETLAKE_CACHE"]).mkdir()
    answer = run(cli.app, ["install"])
    assert answer.exit_code == 1
    assert "lists no sample-v1.2.3" in answer.stderr
    assert "it is only a sample" in answer.stderr


def test_env_puts_the_programs_on_the_path_of_a_shell() -> None:
    run(cli.app, ["install"])
    lines = run(cli.app, ["env"]).stdout
    said = subprocess.run(["sh", "-c", f"{lines}\nsample"], capture_output=True, text=True, check=True)
    assert said.stdout == "sampled\n"


def test_the_folder_of_links_follows_what_is_installed() -> None:
    run(cli.app, ["install"])
    folder = bin_folder(bom=cli.load_bom())
    (folder / "stranger").symlink_to("/bin/true")
    link = (folder / "sample").readlink()
    (folder / "sample").unlink()
    (folder / "sample").symlink_to("/bin/false")
    assert bin_folder() == folder
    assert [path.name for path in folder.iterdir()] == ["sample"]
    assert (folder / "sample").readlink() == link


def test_programs_that_look_for_each_other_beside_themselves_are_no_symbolic_links(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(cli.app, ["install"])
    bom = cli.load_bom()
    monkeypatch.setattr("toolchain.links._TOGETHER", "sample")
    for _ in range(2):
        program = bin_folder(bom=bom) / "sample"
        assert not program.is_symlink()
        assert program.samefile(Cache.default().place(bom.tool("sample"), this_platform()) / "bin/sample")


def test_the_sbom_lists_the_tool_and_where_it_came_from() -> None:
    run(cli.app, ["install"])
    document = json.loads(run(cli.app, ["sbom"]).stdout)
    assert document["bomFormat"] == "CycloneDX"
    (component,) = document["components"]
    assert component["name"] == "sample"
    assert {"name": "marketlake:source", "value": "registry"} in component["properties"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_installation_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def interrupted(*_args: object, **_options: object) -> None:
        os.kill(os.getpid(), number)
        signal.pause()

    monkeypatch.setattr("toolchain.installation.Installation.install", interrupted)
    former = signal.getsignal(signal.SIGTERM)
    assert run(cli.app, ["install"]).exit_code == 130
    assert signal.getsignal(signal.SIGTERM) == former


def test_python_m_toolchain_is_the_same_command() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "toolchain", "list", "--json"], capture_output=True, check=True
    )
    assert {row["name"] for row in json.loads(said.stdout)} == set(bom_module.load_bom().tools)
