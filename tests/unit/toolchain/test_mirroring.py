"""`marketlake tools mirror`: what it writes can be proven, is written once, and survives a kill."""

import base64
import errno
import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.unit.toolchain.conftest import RecordedProgress, sample_bom
from toolchain import cli
from toolchain.cache import Cache, Receipt
from toolchain.installation import Installation
from toolchain.mirroring import archives, wheels, write_mirror
from toolchain.mirroring.folder import MirrorFolder
from toolchain.mirroring.images import images_of
from toolchain.platforms import this_platform

PLATFORM = this_platform()
ARCHIVE = f"sample-v1.2.3-{PLATFORM}.tar.gz"
RECORD = f"wheels/{wheels.PYTHON}-{PLATFORM}.txt"
DEADLINE = 60
run = CliRunner().invoke


class World:
    """A cache with one tool, an index of three wheels, and what is locked of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mirror = folder / "mirror"
        self.index = folder / "index"
        self.index.mkdir()
        self.bom = sample_bom(recipes=folder / "recipes")
        self.cache = Cache(folder / "cache")
        self.place = self.cache.place(self.bom.tool("sample"), PLATFORM)
        self.install()
        self.locked = self.publish("library") + self.publish("other")
        (folder / "none.txt").touch()

    def install(self, content: str = "program", checksum: str = "one") -> None:
        (self.place / "inner/bin").mkdir(parents=True, exist_ok=True)
        (self.place / "inner/bin/sample").write_text(content)
        (self.place / "inner/bin/sample").chmod(0o755)
        (self.place / "inner/lib.so").touch()
        if not (self.place / "inner/lib").is_symlink():
            (self.place / "inner/lib").symlink_to("lib.so")
        tool = self.bom.tool("sample")
        receipt = Receipt(
            name="sample", version="1.2.3", platform=str(PLATFORM), source="registry", location="jars",
            checksum=checksum, verified="by jars.lock", source_digest=tool.source_digest("registry"),
            installed_at="2026-01-01", seconds=5, root="inner", note="a stand-in",
        )  # fmt: skip
        (self.place / "receipt.json").write_text(receipt.to_json())

    def publish(self, name: str) -> str:
        """Put a wheel into the index, and return the requirement that locks it."""
        path = self.index / f"{name}-1.0-py3-none-any.whl"
        info = f"{name}-1.0.dist-info"
        files = {
            f"{name}.py": b"",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        lines = [
            f"{each},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},"
            for each, content in files.items()
        ]
        with zipfile.ZipFile(path, "w") as archive:
            for each, content in files.items():
                archive.writestr(each, content)
            archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,", ""]))
        return f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"

    def write(self, *options: str) -> Result:
        return run(cli.app, ["mirror", str(self.mirror), *options])

    def report(self) -> dict[str, object]:
        done = self.write("--json")
        assert done.exit_code == 0, done.stderr
        told: dict[str, object] = json.loads(done.stdout)
        return told

    def files(self) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(self.mirror)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in self.mirror.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def world(recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    for module in ("cli", "cache", "installation", "mirroring.writing"):
        monkeypatch.setattr(f"toolchain.{module}.load_bom", lambda: made.bom)
    monkeypatch.setattr(wheels, "_locked", lambda _cache: made.locked)
    monkeypatch.setattr(wheels, "BUILT_WITH", tmp_path / "none.txt")
    monkeypatch.setattr(wheels, "BOOTSTRAP", tmp_path / "none.txt")
    monkeypatch.setenv("MARKETLAKE_CACHE", str(made.cache.folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.index))
    return made


@pytest.fixture
def tools_only(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, without the seconds that pip takes."""
    monkeypatch.setattr("toolchain.mirroring.writing.write_wheels", lambda *_: [])
    return world


def test_a_mirror_holds_tools_and_wheels_and_the_digest_of_each(world: World) -> None:
    told = world.report()
    assert told["tools"] == {"sample": "1.2.3"}
    assert (told["platform"], told["python"], told["wheels"]) == (str(PLATFORM), wheels.PYTHON, 2)
    listed = {line.split("  ")[1] for line in (world.mirror / "SHA256SUMS").read_text().splitlines()}
    whls = {f"wheels/{name}-1.0-py3-none-any.whl" for name in ("library", "other")}
    assert listed == {ARCHIVE, RECORD, *whls}
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=world.mirror, check=True)


def test_the_tool_of_a_mirror_is_the_one_of_the_cache(tools_only: World) -> None:
    tools_only.report()
    elsewhere = Cache(tools_only.folder / "elsewhere")
    (tool,) = Installation(
        bom=tools_only.bom, cache=elsewhere, environment={"MARKETLAKE_TOOL_MIRROR": str(tools_only.mirror)}
    ).install(progress=RecordedProgress())
    assert tool.root.name == "inner"
    assert tool.executables["sample"].read_text() == "program"
    assert (tool.root / "lib").readlink() == Path("lib.so")
    assert tool.receipt.mirror == str(tools_only.mirror / ARCHIVE)
    assert (tool.receipt.source, tool.receipt.note) == ("registry", "a stand-in")
    here = tools_only.cache.find(tools_only.bom.tool("sample"), PLATFORM)
    assert here is not None
    assert tool.receipt.identity == here.receipt.identity, "or images would be built again"


def test_what_is_there_is_not_written_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.report()
    before = world.files()
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")  # a second run asks no index
    assert world.report() == {**first, "written": 0}
    assert world.files() == before


def test_the_same_tool_gives_the_same_archive_wherever_it_was_installed(tools_only: World) -> None:
    tools_only.report()
    before = tools_only.files()[ARCHIVE][1]
    receipt = json.loads((tools_only.place / "receipt.json").read_text())
    (tools_only.place / "receipt.json").write_text(
        json.dumps({**receipt, "installed_at": "later", "seconds": 7, "mirror": "/elsewhere"})
    )
    os.utime(tools_only.place / "inner/bin/sample", (1, 1))
    (tools_only.mirror / ARCHIVE).unlink()
    assert tools_only.report()["written"] == 0, "it has the listed digest again"
    assert tools_only.files()[ARCHIVE][1] == before


def test_a_tool_that_was_made_of_something_else_is_packed_again(tools_only: World) -> None:
    tools_only.report()
    tools_only.install("another", checksum="two")
    assert tools_only.report()["written"] == 1


@pytest.mark.parametrize("name", [ARCHIVE, "wheels/library-1.0-py3-none-any.whl", RECORD])
def test_what_was_damaged_is_written_again(world: World, name: str) -> None:
    world.report()
    before = {path: content for path, (_, content) in world.files().items()}
    (world.mirror / name).write_bytes(b"damaged")
    world.report()
    assert {path: content for path, (_, content) in world.files().items()} == before


def test_what_is_newly_locked_is_added(world: World) -> None:
    world.report()
    world.locked += world.publish("newer")
    assert world.report()["written"] == 2, "the wheel and the list of wheels"
    assert (world.mirror / "wheels/newer-1.0-py3-none-any.whl").exists()


def test_a_wheel_that_is_not_the_locked_one_is_refused(world: World) -> None:
    world.publish("library")
    world.locked = world.locked.replace("sha256:", "sha256:0000", 1)
    answer = world.write()
    assert answer.exit_code == 1
    assert "the locked wheels cannot be had" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (world.mirror / RECORD).exists()


def test_a_run_that_was_killed_is_completed_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_args: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr("toolchain.mirroring.writing.write_wheels", killed)
        process = multiprocessing.get_context("fork").Process(target=world.write)
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert ARCHIVE in world.files()
    (world.mirror / ".staging/half").write_bytes(b"half")
    assert world.report()["written"] == 3, "all but the tool, which was whole"
    assert not (world.mirror / ".staging").exists()


def test_an_archive_that_a_killed_run_did_not_list_is_written_again(tools_only: World) -> None:
    tools_only.report()
    sums = tools_only.mirror / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if ARCHIVE not in line))
    (tools_only.mirror / ARCHIVE).write_bytes(b"anything")
    assert tools_only.report()["written"] == 1


def test_ctrl_c_ends_every_pip(world: World, tmp_path: Path) -> None:
    log = tmp_path / "pips"
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ >> {log}\nexec sleep 600\n")
    slow.chmod(0o755)

    def write() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.executable = str(slow)
        sys.exit(world.write().exit_code)

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(DEADLINE)
    assert process.exitcode == 130
    wait_for(lambda: not Path("/proc", log.read_text().strip()).exists())
    assert not (world.mirror / ".staging").exists()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk of .* is full. What is listed there is whole: free some room"),
        (errno.EACCES, "the mirror .* cannot be written: .*Permission denied"),
    ],
)
def test_an_error_of_the_disk_says_what_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def fail(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(archives, "add", fail)
    answer = world.write()
    assert answer.exit_code == 1
    assert re.search(message, answer.stderr)
    assert not (world.mirror / ARCHIVE).exists()


def test_a_folder_that_holds_something_else_is_refused(world: World) -> None:
    world.mirror.mkdir()
    (world.mirror / "letters").touch()
    answer = world.write()
    assert answer.exit_code == 1
    assert "holds letters and no SHA256SUMS, so it is no mirror" in answer.stderr
    assert [path.name for path in world.mirror.iterdir()] == ["letters"]


def test_a_file_in_the_place_of_the_folder_is_refused(world: World) -> None:
    world.mirror.touch()
    answer = world.write()
    assert answer.exit_code == 1
    assert "is no folder" in answer.stderr


def test_an_unknown_group_is_answered_with_those_that_there_are(world: World) -> None:
    answer = world.write("--group", "kuberntes")
    assert answer.exit_code == 1
    assert "no group of tools is called 'kuberntes'" in answer.stderr
    assert not world.mirror.exists()


def test_two_runs_wait_for_each_other(tmp_path: Path) -> None:
    waits, opened = threading.Event(), threading.Event()

    def second() -> None:
        with MirrorFolder.opened(tmp_path / "mirror", waits.set):
            opened.set()

    thread = threading.Thread(target=second)
    with MirrorFolder.opened(tmp_path / "mirror", lambda: None):
        thread.start()
        assert waits.wait(DEADLINE)
        assert not opened.is_set()
    thread.join(DEADLINE)
    assert opened.is_set()


def test_the_message_says_how_the_mirror_is_used(tools_only: World) -> None:
    answer = tools_only.write()
    assert answer.exit_code == 0
    assert f"{tools_only.mirror} holds 1 tools and no images for {PLATFORM}" in answer.stdout
    assert f"MARKETLAKE_TOOL_MIRROR={tools_only.mirror} make up" in answer.stdout


@pytest.mark.parametrize(
    ("groups", "held", "missing"),
    [
        ((), set(), {"minio", "pause"}),
        (("packages",), set(), {"minio", "pause"}),
        (("kubernetes",), {"minio", "marketlake"}, {"pause"}),
        (("cluster",), {"pause", "coredns"}, {"minio"}),
        (("kubernetes", "cluster"), {"minio", "pause"}, set()),
    ],
)
def test_images_come_with_the_groups_that_need_them(
    groups: tuple[str, ...], held: set[str], missing: set[str]
) -> None:
    names = set(images_of(groups))
    assert held <= names
    assert not missing & names


def test_the_report_counts_what_the_mirror_holds(tools_only: World) -> None:
    report = write_mirror(tools_only.mirror, progress=RecordedProgress())
    assert report.written == 1
    assert report.bytes == sum(
        len(content)
        for name, (_, content) in tools_only.files().items()
        if name not in {"SHA256SUMS", ".lock"}
    )
