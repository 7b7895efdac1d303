"""The real compiler on a module proxy that is a folder: what go.sum does not know is not compiled."""

import base64
import hashlib
import os
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import toolchain
from toolchain.bom import GoBuild, GoFiles, Layout, load_bom
from toolchain.cache import Cache
from toolchain.errors import SourceUnavailableError
from toolchain.fetch import Fetcher
from toolchain.platforms import this_platform
from toolchain.sources import Workshop
from toolchain.sources.gomodule import from_go_build, from_go_files

pytestmark = pytest.mark.integration

MODULE, VERSION = "example.test/greeting", "v1.0.0"
GO_MOD = f"module {MODULE}\n\ngo 1.26\n"
BUILD = GoBuild("greeting", {"greet": f"{MODULE}/greet"}, ldflags=f"-X {MODULE}/greet.version=1")
FILES = GoFiles("greeting", MODULE, Layout(pick={"notes.txt": "notes.txt"}))


def hash_one(files: dict[str, bytes]) -> str:
    """Go's ``h1:`` sum of a module's files (golang.org/x/mod/sumdb/dirhash, Hash1)."""
    lines = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """A module proxy with one module, a recipe that pins it, and the pinned compiler."""
    toolchain.install(["go"])
    go = toolchain.locate("go")
    root = f"{MODULE}@{VERSION}"
    files = {
        f"{root}/go.mod": GO_MOD.encode(),
        f"{root}/notes.txt": b"read me",
        f"{root}/greet/main.go": b'package main\n\nfunc main() { println("hello") }\n',
    }
    proxy = tmp_path / "proxy" / MODULE / "@v"
    proxy.mkdir(parents=True)
    (proxy / f"{VERSION}.info").write_text(f'{{"Version": "{VERSION}"}}')
    (proxy / f"{VERSION}.mod").write_text(GO_MOD)
    with zipfile.ZipFile(proxy / f"{VERSION}.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    recipe = tmp_path / "recipes/greeting"
    recipe.mkdir(parents=True)
    (recipe / "go.mod").write_text(
        f"module marketlake.tools/greeting\n\ngo 1.26\n\nrequire {MODULE} {VERSION}\n"
    )
    (recipe / "go.sum").write_text(
        f"{MODULE} {VERSION} {hash_one(files)}\n{MODULE} {VERSION}/go.mod {hash_one({'go.mod': GO_MOD.encode()})}\n"
    )
    monkeypatch.setattr("toolchain.sources.gomodule.RECIPES", tmp_path / "recipes")
    monkeypatch.setenv("GOPROXY", (tmp_path / "proxy").as_uri())
    monkeypatch.setenv("GONOSUMDB", "example.test")
    cache = Cache(tmp_path / "cache")
    cache.go.mkdir(parents=True)
    shared = Cache.default().go / "build"
    shared.mkdir(parents=True, exist_ok=True)
    (cache.go / "build").symlink_to(shared)
    yield Workshop(
        cache=cache, platform=this_platform(), fetcher=Fetcher(), mirror=None, step=print, detail=print,
        require={"go": go}.__getitem__, environment=os.environ, compiling=lambda _environment: None,
    )  # fmt: skip
    subprocess.run(["chmod", "-R", "u+w", cache.folder], check=True)  # Go keeps its modules read-only


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


TOOL = replace(load_bom().tool("minio"), name="greeting", executables=("greet",), registry=BUILD)


def test_a_pinned_module_is_compiled_and_runs(workshop: Workshop, staging: Path) -> None:
    from_go_build(TOOL, BUILD, staging, workshop)
    said = subprocess.run([staging / "bin/greet"], capture_output=True, text=True, check=True)
    assert said.stderr == "hello\n"


def test_a_module_that_was_changed_is_refused(workshop: Workshop, staging: Path, tmp_path: Path) -> None:
    archive = next((tmp_path / "proxy").rglob("*.zip"))
    with zipfile.ZipFile(archive, "a") as changed:
        changed.writestr(f"{MODULE}@{VERSION}/greet/more.go", "package main\n")
    with pytest.raises(SourceUnavailableError, match=r"(?s)checksum mismatch.*SECURITY ERROR"):
        from_go_build(TOOL, BUILD, staging, workshop)
    assert not (staging / "bin").exists()


def test_a_module_that_go_sum_does_not_list_is_refused(
    workshop: Workshop, staging: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipes/greeting/go.sum").write_text("")
    with pytest.raises(SourceUnavailableError, match=r"missing go\.sum entry"):
        from_go_build(TOOL, BUILD, staging, workshop)


def test_files_of_a_module_are_copied(workshop: Workshop, staging: Path) -> None:
    origin = from_go_files(TOOL, FILES, staging, workshop)
    assert (staging / "notes.txt").read_text() == "read me"
    assert origin.location == f"Go module {MODULE}@{VERSION}"
    assert origin.checksum.startswith("h1:")


@pytest.mark.parametrize(
    "name", ["pulumi", "postgresql", "java", "minio", "victoria-metrics", "otel-collector"]
)
def test_the_installed_program_is_the_version_that_its_receipt_says(name: str) -> None:
    tool = toolchain.locate(name)
    program, *words = {
        "pulumi": ("pulumi", "version"),
        "postgresql": ("postgres", "--version"),
        "java": ("java", "--version"),
        "minio": ("minio", "--version"),
        "victoria-metrics": ("victoria-metrics", "--version"),
        "otel-collector": ("otel-collector", "--version"),
    }[name]
    said = subprocess.run([tool.executables[program], *words], capture_output=True, text=True, check=True)
    expected = "2026-02-12" if name == "minio" else tool.version
    assert expected in said.stdout + said.stderr
