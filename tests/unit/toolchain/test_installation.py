"""A tool is brought from the first source that works, whole or not at all, by one run at a time."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.toolchain.conftest import PLATFORM, RecordedProgress, mirrored, sample_bom, sha256
from toolchain.bom import Bom, Tool, load_bom
from toolchain.cache import Cache, locate
from toolchain.errors import DiskSpaceError, InstallError, SourceUnavailableError, ToolchainError
from toolchain.fetch import Fetcher
from toolchain.installation import SOURCES, Installation, from_registry
from toolchain.sources import Origin, Workshop
from toolchain.sources.mirror import archive_name


def giving(content: str, note: str | None = None, version: str | None = None):
    """A source that gives the tool."""

    def acquire(_tool: Tool, staging: Path, workshop: Workshop) -> Origin:
        workshop.step("giving")
        (staging / "bin").mkdir()
        (staging / "bin/sample").write_text(content)
        return Origin("somewhere", "sha256:00", "by hand", version, note)

    return acquire


def refusing(reason: str):
    """A source that has nothing, and left half of something."""

    def acquire(_tool: Tool, staging: Path, _workshop: Workshop) -> Origin:
        (staging / "half").write_text("half")
        raise SourceUnavailableError(reason)

    return acquire


@pytest.fixture
def bom(recipes: Path) -> Bom:
    return sample_bom(recipes=recipes)


def installation(bom: Bom, cache: Cache, **sources: object) -> Installation:
    return Installation(bom=bom, cache=cache, platform=PLATFORM, environment={}, sources=sources)  # type: ignore[arg-type]


def test_the_first_source_that_works_is_taken(bom: Bom, cache: Cache, progress: RecordedProgress) -> None:
    run = installation(
        bom, cache, mirror=refusing("not set"), vendor=giving("vendor"), registry=giving("registry")
    )
    (tool,) = run.install(progress=progress)
    assert tool.executables["sample"].read_text() == "vendor"
    assert os.access(tool.executables["sample"], os.X_OK)
    assert progress.starts == [("sample", "1/1")]
    assert len(progress.lines) == 1
    assert progress.lines[0].startswith("✓ sample 1.2.3 from vendor (somewhere), 0.")
    assert progress.lines[0].endswith("; not from mirror")


def test_what_is_there_costs_nothing(bom: Bom, cache: Cache, progress: RecordedProgress) -> None:
    installation(bom, cache, mirror=giving("first")).install(progress=progress)
    progress.lines.clear()
    (tool,) = installation(bom, cache, mirror=giving("second")).install(progress=progress)
    assert tool.executables["sample"].read_text() == "first"
    assert progress.lines == []


def test_it_can_be_brought_anew(bom: Bom, cache: Cache, progress: RecordedProgress) -> None:
    installation(bom, cache, mirror=giving("first")).install(progress=progress)
    (tool,) = installation(bom, cache, mirror=giving("second")).install(
        ["sample"], again=True, progress=progress
    )
    assert tool.executables["sample"].read_text() == "second"
    assert list(cache.staging.iterdir()) == []


def test_a_changed_recipe_makes_the_installed_tool_outdated(
    bom: Bom, cache: Cache, recipes: Path, progress: RecordedProgress
) -> None:
    installation(bom, cache, registry=giving("old")).install(progress=progress)
    (recipes / "sample/jars.lock").write_text("changed")
    (tool,) = installation(bom, cache, registry=giving("new")).install(progress=progress)
    assert tool.executables["sample"].read_text() == "new"


def test_the_receipt_tells_where_it_came_from(bom: Bom, cache: Cache, progress: RecordedProgress) -> None:
    source = giving("x", note="a stand-in", version="1.0")
    (tool,) = installation(bom, cache, registry=source).install(progress=progress)
    written = json.loads((cache.place(bom.tool("sample"), PLATFORM) / "receipt.json").read_text())
    assert written["source"] == "registry"
    assert written["version"] == tool.version == "1.0"
    assert written["verified"] == "by hand"
    assert written["installed_at"].endswith("+00:00")
    assert progress.lines[0].endswith("note: a stand-in")


def test_when_nothing_works_every_place_is_named_and_nothing_is_left(
    bom: Bom, cache: Cache, progress: RecordedProgress
) -> None:
    run = installation(
        bom, cache, mirror=refusing("not set"), vendor=refusing("away"), registry=refusing("a\nb")
    )
    with pytest.raises(InstallError) as failure:
        run.install(progress=progress)
    assert str(failure.value) == (
        "sample 1.2.3 could not be installed. Tried, in this order:\n"
        "  - mirror: not set\n  - vendor: away\n  - registry: a\n      b\n"
        "Give this machine access to the vendor's site or to the package registry, or set MARKETLAKE_TOOL_MIRROR "
        "to a mirror that holds sample-v1.2.3-linux-amd64.tar.gz: `marketlake tools mirror` writes one where there "
        "is access."
    )
    assert list(cache.staging.iterdir()) == []
    assert cache.find(bom.tool("sample"), PLATFORM) is None


def two_tools(bom: Bom) -> Bom:
    second = replace(bom.tool("sample"), name="second")
    return Bom({**bom.tools, "second": second})


def test_one_that_fails_does_not_keep_the_others_from_being_brought(
    bom: Bom, cache: Cache, progress: RecordedProgress
) -> None:
    def acquire(tool: Tool, staging: Path, workshop: Workshop) -> Origin:
        return (refusing("away") if tool.name == "sample" else giving("x"))(tool, staging, workshop)

    with pytest.raises(InstallError, match=r"sample 1\.2\.3 could not"):
        installation(two_tools(bom), cache, vendor=acquire).install(progress=progress)
    assert cache.find(replace(bom.tool("sample"), name="second"), PLATFORM)
    assert progress.lines[0] == "✗ sample 1.2.3: no source worked"


def test_several_failures_are_all_told(bom: Bom, cache: Cache, progress: RecordedProgress) -> None:
    with pytest.raises(ToolchainError, match=r"(?s)sample 1\.2\.3 could not.*second 1\.2\.3 could not"):
        installation(two_tools(bom), cache, vendor=refusing("away")).install(progress=progress)


def needing(name: str):
    """A source that needs another tool first."""

    def acquire(tool: Tool, staging: Path, workshop: Workshop) -> Origin:
        if tool.name == "sample":
            needed = workshop.require(name)
            assert needed.executables["sample"].exists()
        return giving(tool.name)(tool, staging, workshop)

    return acquire


def test_a_tool_that_a_build_needs_is_brought_in_its_turn(
    bom: Bom, cache: Cache, progress: RecordedProgress
) -> None:
    bom = two_tools(bom)
    bom = Bom({**bom.tools, "second": replace(bom.tool("second"), build_only=True)})
    (tool,) = installation(bom, cache, registry=needing("second")).install(progress=progress)
    assert tool.name == "sample"
    assert cache.find(bom.tool("second"), PLATFORM)
    assert progress.starts == [("sample", "1/1")]
    assert progress.steps == ["second: giving", "giving"]


def test_a_build_whose_need_cannot_be_met_says_why(
    bom: Bom, cache: Cache, progress: RecordedProgress
) -> None:
    def acquire(tool: Tool, staging: Path, workshop: Workshop) -> Origin:
        return (needing("second") if tool.name == "sample" else refusing("away"))(tool, staging, workshop)

    with pytest.raises(
        InstallError, match=r"(?s)registry: it needs second\. second 1\.2\.3 could not.*registry: away"
    ):
        installation(two_tools(bom), cache, registry=acquire).install(["sample"], progress=progress)


def test_a_source_without_the_promised_program_is_not_accepted(
    bom: Bom, cache: Cache, progress: RecordedProgress
) -> None:
    def acquire(_tool: Tool, _staging: Path, _workshop: Workshop) -> Origin:
        return Origin("an empty archive", "", "")

    with pytest.raises(InstallError, match="an empty archive holds no program sample"):
        installation(bom, cache, vendor=acquire).install(progress=progress)


def test_too_little_room_is_told_before_a_registry_is_asked(
    bom: Bom, cache: Cache, progress: RecordedProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=500_000)
    monkeypatch.setattr("toolchain.installation.shutil.disk_usage", lambda _folder: usage)
    expected = r"has 0 MB free; bringing sample, second from package registries may take 2 MB\. Free some, or"
    with pytest.raises(DiskSpaceError, match=expected):
        installation(two_tools(bom), cache, registry=giving("x")).install(progress=progress)
    assert progress.steps == []


def test_a_disk_that_runs_full_leaves_nothing_half_done(
    bom: Bom, cache: Cache, progress: RecordedProgress
) -> None:
    def acquire(_tool: Tool, staging: Path, _workshop: Workshop) -> Origin:
        (staging / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskSpaceError, match="ran full while sample was brought"):
        installation(bom, cache, mirror=acquire).install(progress=progress)
    assert list(cache.staging.iterdir()) == []


def test_another_fault_of_the_disk_is_not_hidden(bom: Bom, cache: Cache, progress: RecordedProgress) -> None:
    def acquire(_tool: Tool, _staging: Path, _workshop: Workshop) -> Origin:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PermissionError):
        installation(bom, cache, mirror=acquire).install(progress=progress)


def test_two_runs_at_once_bring_a_tool_once(bom: Bom, cache: Cache, progress: RecordedProgress) -> None:
    cache.tools.mkdir(parents=True)
    given = []

    def slowly(tool: Tool, staging: Path, workshop: Workshop) -> Origin:
        given.append(tool.name)
        time.sleep(0.2)
        return giving("x")(tool, staging, workshop)

    def work() -> None:
        installation(bom, cache, mirror=slowly).install(progress=RecordedProgress())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given == ["sample"]


def test_who_waits_for_another_run_is_told_for_whom(
    bom: Bom, cache: Cache, progress: RecordedProgress
) -> None:
    cache.tools.mkdir(parents=True)
    with (cache.tools / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("4711")
        other.flush()
        thread = threading.Thread(
            target=installation(bom, cache, mirror=giving("x")).install, kwargs={"progress": progress}
        )
        thread.start()
        deadline = time.monotonic() + 5
        while not progress.lines and time.monotonic() < deadline:
            time.sleep(0.01)
        assert progress.lines == ["waiting for another installation (process 4711) to end"]
        assert progress.starts == []
    thread.join()
    assert cache.find(bom.tool("sample"), PLATFORM)


def test_a_killed_run_leaves_nothing_that_the_next_one_minds(
    bom: Bom, cache: Cache, progress: RecordedProgress, tmp_path: Path
) -> None:
    code = f"""
        import time
        from pathlib import Path
        from tests.unit.toolchain.conftest import PLATFORM, sample_bom
        from toolchain.cache import Cache
        from toolchain.installation import Installation
        def hang(tool, staging, workshop):
            (staging / "half").write_text("half")
            Path({str(tmp_path / "hanging")!r}).touch()
            time.sleep(60)
        Installation(bom=sample_bom(), cache=Cache(Path({str(cache.folder)!r})), platform=PLATFORM,
                     environment={{}}, sources={{"mirror": hang}}).install()
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (tmp_path / "hanging").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(cache.staging.rglob("half"))
    (tool,) = installation(bom, cache, mirror=giving("x")).install(progress=progress)
    assert tool.executables["sample"].read_text() == "x"
    assert not list(cache.staging.rglob("half"))


def test_a_compiler_that_outlived_its_killed_run_is_in_nobodys_way(
    bom: Bom, cache: Cache, progress: RecordedProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = cache.staging / "sample-of-the-killed-run"
    remove = shutil.rmtree

    def remove_and_see_it_written_again(folder: Path, **how: object) -> None:
        remove(folder, **how)
        if folder == cache.staging:
            late.mkdir(parents=True)

    monkeypatch.setattr("toolchain.installation.shutil.rmtree", remove_and_see_it_written_again)
    (tool,) = installation(bom, cache, mirror=giving("x")).install(progress=progress)
    assert tool.executables["sample"].read_text() == "x"
    assert list(cache.staging.iterdir()) == [late]


@pytest.mark.parametrize(
    ("listed", "away", "expected"),
    [
        ([], True, ["java", "minio", "jaeger"]),
        ([], False, ["java", "minio"]),
        (["minio"], True, ["java", "jaeger"]),
    ],
)
def test_what_will_surely_come_from_a_registry_is_known_ahead(
    listed: list[str], away: bool, expected: list[str], cache: Cache, tmp_path: Path
) -> None:
    class Hosts(Fetcher):
        def is_away(self, url: str) -> bool:
            return away

    bom = load_bom()
    sums = [f"{'0' * 64}  {archive_name(bom.tool(name), PLATFORM)}" for name in listed]
    (tmp_path / "SHA256SUMS").write_text("\n".join(sums))
    run = Installation(
        bom=bom,
        cache=cache,
        platform=PLATFORM,
        environment={"MARKETLAKE_TOOL_MIRROR": str(tmp_path)},
        fetcher=Hosts(),
    )
    tools = run._surely_from_registry([bom.tool(name) for name in ("java", "minio", "jaeger")])
    assert [tool.name for tool in tools] == expected


def test_later_builds_are_begun_when_the_first_one_compiles(
    cache: Cache, progress: RecordedProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []
    monkeypatch.setattr(
        "toolchain.installation.WorkAhead.begin",
        lambda _self, builds, _environment: begun.append([name for b in builds for name in b.packages]),
    )

    def acquire(tool: Tool, staging: Path, workshop: Workshop) -> Origin:
        workshop.compiling({})
        (staging / "bin").mkdir()
        for program in tool.executables:
            (staging / "bin" / program).touch()
        return Origin("somewhere", "", "")

    minio = load_bom().tool("minio")
    bom = Bom({name: replace(minio, name=name) for name in ("one", "two")})
    installation(bom, cache, registry=acquire).install(progress=progress)
    assert begun == [["minio"], []]


@pytest.mark.parametrize(
    ("name", "brings"),
    [
        ("java", "from_wheel"),
        ("pulumi-language-python", "from_python_program"),
        ("minio", "from_go_build"),
        ("pulumi-python-scripts", "from_go_files"),
        ("kafka", "from_maven"),
    ],
)
def test_each_registry_has_its_way(
    name: str, brings: str, staging: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        f"toolchain.installation.{brings}", lambda tool, recipe, _staging, _workshop: (tool, recipe)
    )
    tool = load_bom().tool(name)
    assert from_registry(tool, staging, workshop) == (tool, tool.registry)


def test_a_mirror_named_by_the_environment_is_used(
    bom: Bom, cache: Cache, progress: RecordedProgress, tmp_path: Path
) -> None:
    archive = mirrored(bom.tool("sample"), b"mirrored")
    name = "sample-v1.2.3-linux-amd64.tar.gz"
    (tmp_path / name).write_bytes(archive)
    (tmp_path / "SHA256SUMS").write_text(f"{sha256(archive)}  {name}\n")
    run = Installation(
        bom=bom,
        cache=cache,
        platform=PLATFORM,
        environment={"MARKETLAKE_TOOL_MIRROR": str(tmp_path)},
        sources=SOURCES,
    )
    (tool,) = run.install(progress=progress)
    assert tool.executables["sample"].read_bytes() == b"mirrored"
    receipt = locate("sample", bom=bom, cache=cache).receipt
    assert (receipt.source, receipt.mirror) == ("registry", str(tmp_path / name))
    assert f"✓ sample 1.2.3 from mirror ({tmp_path / name})" in progress.lines[0]


def test_a_mirror_that_was_made_by_another_recipe_is_passed_over(
    bom: Bom, cache: Cache, progress: RecordedProgress, tmp_path: Path
) -> None:
    archive = mirrored(bom.tool("sample"), source_digest="another")
    name = "sample-v1.2.3-linux-amd64.tar.gz"
    (tmp_path / name).write_bytes(archive)
    (tmp_path / "SHA256SUMS").write_text(f"{sha256(archive)}  {name}\n")
    run = Installation(
        bom=bom,
        cache=cache,
        platform=PLATFORM,
        environment={"MARKETLAKE_TOOL_MIRROR": str(tmp_path)},
        sources={"mirror": SOURCES["mirror"]},
    )
    with pytest.raises(
        InstallError, match="was made by another recipe than the one in the bill of materials"
    ):
        run.install(progress=progress)
