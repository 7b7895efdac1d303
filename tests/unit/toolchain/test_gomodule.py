"""Go builds run the pinned compiler under our settings; one that only tells what it was asked stands in.

The real one is exercised by tests/integration/test_toolchain_registry.py.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.toolchain.conftest import RecordedProgress, sample_bom, sha256
from toolchain.bom import GoBuild, GoFiles, Layout
from toolchain.cache import InstalledTool
from toolchain.errors import CommandFailedError, SourceUnavailableError
from toolchain.sources import Workshop
from toolchain.sources.gomodule import from_go_build, from_go_files

TOOL = sample_bom().tool("sample")
BUILD = GoBuild(
    "sample",
    {"sample": "example.test/cmd/sample"},
    ldflags="-X main.version=1",
    tags="slim",
    note="a stand-in",
)
COMPILER = f"""#!{sys.executable}
import json, os, sys
words = sys.argv[1:]
with open(os.environ["GOMODCACHE"] + ".asked", "a") as file:
    file.write(json.dumps([words, os.getcwd(), dict(os.environ)]) + "\\n")
say = lambda text: print(text, file=sys.stderr)
if words[0] == "list":
    say("go: downloading example.test/library v1.0.0")
    print("fmt\\nexample.test/library\\nexample.test/cmd/sample")
elif words[0] == "build":
    if os.environ.get("BREAK"):
        say("example.test/library: undefined: thing"); sys.exit(1)
    say("# a warning"); say("example.test/library")
    open(words[words.index("-o") + 1], "w").write("program")
else:
    print(json.dumps({{"Version": "v3.1.0", "Sum": "h1:abc=", "Dir": os.environ["MODULE"]}}))
"""


@pytest.fixture
def built(tmp_path: Path, recipes: Path, workshop: Workshop) -> Workshop:
    (recipes / "sample").mkdir()
    (recipes / "sample/go.mod").write_text("module marketlake.tools/sample\n")
    (recipes / "sample/go.sum").write_text("sums")
    program = tmp_path / "go/bin/go"
    program.parent.mkdir(parents=True)
    program.write_text(COMPILER)
    program.chmod(0o755)
    workshop.cache.go.mkdir(parents=True)
    go = InstalledTool("go", "1.27", tmp_path / "go", {"go": program}, None)  # type: ignore[arg-type]
    return replace(workshop, require={"go": go}.__getitem__)


def asked(workshop: Workshop) -> list[list]:
    lines = (workshop.cache.go / "mod.asked").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_program_is_compiled_into_the_bin_folder(built: Workshop, staging: Path) -> None:
    origin = from_go_build(TOOL, BUILD, staging, built)
    assert [path.name for path in staging.iterdir()] == ["bin"]
    assert (staging / "bin/sample").read_text() == "program"
    assert origin.location == "Go packages example.test/cmd/sample of recipes/sample"
    assert origin.checksum == f"go.sum sha256:{sha256(b'sums')}"
    assert origin.note == "a stand-in"


def test_it_is_compiled_small_without_c_and_only_from_what_is_locked(
    built: Workshop, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOPROXY", "https://proxy.of.the.user")
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    from_go_build(TOOL, BUILD, staging, built)
    words, folder, environment = asked(built)[1]
    assert words[words.index("-ldflags") + 1] == "-s -w -X main.version=1"
    assert words[words.index("-tags") + 1] == "slim"
    assert "-trimpath" in words
    assert Path(folder).name == "sample"
    assert environment["GOFLAGS"] == "-mod=readonly"
    assert environment["CGO_ENABLED"] == "0"
    assert environment["GOTOOLCHAIN"] == "local"
    assert environment["GOPROXY"] == "https://proxy.of.the.user"
    assert environment["GOCACHE"] == str(built.cache.go / "build")


def test_it_is_shown_what_is_downloaded_and_what_compiles(
    built: Workshop, staging: Path, progress: RecordedProgress
) -> None:
    from_go_build(TOOL, BUILD, staging, built)
    assert progress.steps == ["downloading the modules of sample", "compiling sample"]
    assert progress.details == ["1: example.test/library", "package 1 of at most 3: example.test/library"]


def test_a_package_that_does_not_compile_is_told(
    built: Workshop, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREAK", "1")
    with pytest.raises(
        CommandFailedError, match=r"`go build` ended with 1:\nexample.test/library: undefined: thing"
    ):
        from_go_build(TOOL, BUILD, staging, built)
    assert "undefined: thing" in built.log("sample").read_text()


def test_what_a_main_package_embeds_is_supplied_to_the_list_and_to_the_build(
    built: Workshop, staging: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = '["schema.json"]\nmodule = "example.test/sdk"\npath = "schema.json"\n'
    (recipes / "sample/embedded.toml").write_text(entry)
    (tmp_path / "schema.json").write_text("{ }")
    monkeypatch.setenv("MODULE", str(tmp_path))
    from_go_build(TOOL, BUILD, staging, built)
    overlay = built.cache.go / "embedded/sample/overlay.json"
    supplied = {str(recipes / "sample/schema.json"): str(built.cache.go / "embedded/sample/schema.json")}
    assert json.loads(overlay.read_text()) == {"Replace": supplied}
    for words, _, _ in asked(built)[1:]:
        assert words[words.index("-overlay") + 1] == str(overlay)


FILES = GoFiles("sample", "example.test/sdk", Layout(pick={"scripts/run": "bin/run"}))


def test_files_are_copied_out_of_a_module(
    built: Workshop, staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module/scripts").mkdir(parents=True)
    (tmp_path / "module/scripts/run").write_text("#!/bin/sh\n")
    monkeypatch.setenv("MODULE", str(tmp_path / "module"))
    origin = from_go_files(TOOL, FILES, staging, built)
    assert (staging / "bin/run").read_text() == "#!/bin/sh\n"
    assert (origin.location, origin.checksum) == ("Go module example.test/sdk@v3.1.0", "h1:abc=")


def test_a_module_without_the_file_is_named(
    built: Workshop, staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODULE", str(tmp_path))
    with pytest.raises(SourceUnavailableError, match=r"example\.test/sdk holds no scripts/run: No such file"):
        from_go_files(TOOL, FILES, staging, built)
