"""Images are built from what is installed, again only when that changed, and twice the same."""

import hashlib
import json
import os
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.images.distribution import Distribution
from toolchain.bom import Bom, parse_bom
from toolchain.cache import Cache, Receipt
from toolchain.errors import ToolMissingError
from toolchain.images import building, image, planning
from toolchain.images.bases import Python, with_shell
from toolchain.images.building import Building
from toolchain.images.catalogue import CATALOGUE
from toolchain.images.errors import ImageError, UnknownImageError
from toolchain.images.layer import Member
from toolchain.images.runtime import find_uv
from toolchain.images.store import Built, Store
from toolchain.platforms import Platform, this_platform

TAG = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"opt/marketlake/lib/python{TAG}/site-packages"
TOOLS = {tool for recipe in CATALOGUE.values() for tool in recipe.tools}
BOM = "\n".join(
    f"""
[{name}]
version = "1.{len(name)}"
licence = "MIT"
homepage = "https://{name}.test"
purpose = "is packed"
executables = ["{name}"]
disk_mb = 1
no_vendor = "a test's"
[{name}.go-build]
recipe = "pause"
packages = {{ {name} = "." }}
"""
    for name in sorted(TOOLS)
)


class World:
    """A cache with tools, a bill of materials for them, a workspace with a runtime."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = Cache(folder / "cache")
        self.bom: Bom = parse_bom(BOM)
        self.lines: list[str] = []
        self.steps: list[str] = []
        self.workspace = folder / "workspace"
        (self.workspace / "runtime").mkdir(parents=True)
        (self.workspace / "runtime/pyproject.toml").write_text('[project]\nversion = "0.1.0"\n')

    def start(self, tool: str, position: str) -> None: ...

    def detail(self, text: str) -> None: ...

    def step(self, text: str) -> None:
        self.steps.append(text)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def install(self, *names: str, root: str = ".", source: str = "vendor", content: str = "one") -> None:
        for name in names:
            tool = self.bom.tool(name)
            place = self.cache.place(tool, this_platform())
            (place / root / "bin").mkdir(parents=True, exist_ok=True)
            (place / root / "bin" / name).write_text(content)
            (place / root / "bin" / name).chmod(0o755)
            (place / root / "include").mkdir(exist_ok=True)
            (place / root / "include/it.h").touch()
            receipt = Receipt(
                name=name, version=tool.version, platform=str(this_platform()), source=source, location="a test",
                checksum=hashlib.sha256(content.encode()).hexdigest(), verified="not", source_digest="",
                installed_at="", seconds=0, root=root,
            )  # fmt: skip
            (place / "receipt.json").write_text(receipt.to_json())

    def build(self, *names: str, **options: Any) -> dict[str, Built]:
        return self.building(**options).build(names or None)

    def building(self, **options: Any) -> Building:
        return Building(self, cache=self.cache, bom=self.bom, workspace=self.workspace, **options)

    @property
    def store(self) -> Store:
        return Store.of(self.cache)

    def config(self, built: Built) -> dict[str, Any]:
        digest = self.store.manifest(built)["config"]["digest"]
        told: dict[str, Any] = json.loads(self.store.blob(digest).read_text())
        return told

    def contents(self, built: Built) -> dict[str, tarfile.TarInfo]:
        found = {}
        for layer in self.store.manifest(built)["layers"]:
            with tarfile.open(self.store.blob(layer["digest"])) as tar:
                found.update({member.name: member for member in tar})
        return found

    def read(self, built: Built, path: str) -> str:
        for layer in reversed(self.store.manifest(built)["layers"]):
            with tarfile.open(self.store.blob(layer["digest"])) as tar:
                if path in tar.getnames():
                    file = tar.extractfile(path)
                    assert file is not None
                    return file.read().decode()
        raise AssertionError(f"no layer holds {path}")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def whole(world: World, debian: Distribution) -> World:
    """Everything is installed."""
    world.install(*TOOLS)
    return world


def test_a_static_program_needs_nothing_of_the_distribution(world: World) -> None:
    world.install("minio")
    built = world.build("minio")["minio"]
    contents = world.contents(built)
    assert contents["opt/minio/bin/minio"].mode == 0o755
    assert contents["tmp"].mode == 0o1777
    assert "etc/ssl/certs/ca-certificates.crt" in contents
    assert not [path for path in contents if "receipt" in path or "include" in path]
    told = world.config(built)
    assert told["config"]["User"] == "65532:65532"
    assert told["config"]["Entrypoint"] == ["/opt/minio/bin/minio"]
    assert "HOME=/tmp" in told["config"]["Env"]
    assert told["rootfs"]["diff_ids"] == [layer["digest"] for layer in world.store.manifest(built)["layers"]]


def test_what_was_built_is_found(world: World) -> None:
    world.install("minio")
    built = world.build("minio")["minio"]
    found = image.locate("minio", store=world.store, bom=world.bom)
    assert found.reference == f"marketlake.local/minio@{built.digest}"
    assert found.executables == {"minio": "/opt/minio/bin/minio"}


def test_blobs_are_what_their_names_say(whole: World) -> None:
    whole.build()
    for blob in (whole.store.layout / "blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_another_cache_gives_the_same_images(whole: World, tmp_path: Path, debian: Distribution) -> None:
    other = World(tmp_path / "other")
    other.install(*TOOLS)
    os.utime(other.cache.place(other.bom.tool("minio"), this_platform()) / "bin/minio", (9, 9))
    digests = {name: built.digest for name, built in whole.build().items()}
    assert digests == {name: built.digest for name, built in other.build().items()}
    assert set(digests) == set(CATALOGUE)


def test_nothing_is_written_when_nothing_changed(whole: World) -> None:
    whole.build()
    before = {path: path.stat().st_mtime_ns for path in whole.store.folder.rglob("*") if path.is_file()}
    whole.lines.clear()
    whole.build()
    after = {path: path.stat().st_mtime_ns for path in whole.store.folder.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {whole.store.folder / ".lock"}
    assert whole.lines == []


def test_a_changed_tool_changes_its_image_alone_and_the_former_goes(world: World) -> None:
    world.install("minio", "jaeger")
    former = world.build("minio", "jaeger")
    world.install("minio", content="two")
    now = world.build("minio", "jaeger")
    assert now["minio"].digest != former["minio"].digest
    assert now["jaeger"] == former["jaeger"]
    assert not world.store.blob(former["minio"].digest).exists()


def test_layers_made_in_another_way_are_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.install("minio")
    former = world.build("minio")["minio"]
    world.steps.clear()
    monkeypatch.setattr(planning, "_made_by", lambda: "by other code")
    now = world.build("minio")["minio"]
    assert not set(former.layers) & set(now.layers)
    assert set(world.store.read().layers) == set(now.layers)
    assert "packing minio" in world.steps
    assert now.digest == former.digest


def test_an_image_told_in_another_way_keeps_its_layers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.install("minio")
    former = world.build("minio")["minio"]
    world.steps.clear()
    monkeypatch.setattr(building, "told_by", lambda: "other code")
    now = world.build("minio")["minio"]
    assert now.key != former.key
    assert now.layers == former.layers
    assert world.steps == []


def test_every_module_that_fills_layers_counts_when_they_are_looked_up() -> None:
    """Names taken from the catalogue count by their values; keys, errors and the store fill nothing."""
    folder = Path(planning.__file__).parent
    filling = {"planning"}
    for _ in range(3):
        for module in sorted(filling):
            filling.update(
                re.findall(r"from toolchain\.images\.(\w+) import", (folder / f"{module}.py").read_text())
            )
        filling -= {"catalogue", "errors", "keys", "store"}
    assert {f"{module}.py" for module in filling} == set(planning._CODE)


def test_a_lost_layer_is_made_again(world: World) -> None:
    world.install("minio")
    built = world.build("minio")["minio"]
    lost = world.store.blob(world.store.manifest(built)["layers"][1]["digest"])
    lost.unlink()
    assert world.build("minio")["minio"].digest == built.digest
    assert lost.is_file()


def test_bases_are_shared(whole: World) -> None:
    images = whole.build()
    layers = {
        name: [each["digest"] for each in whole.store.manifest(built)["layers"]]
        for name, built in images.items()
    }
    assert len({each[0] for each in layers.values()}) == 1
    assert layers["postgresql"][1] == layers["kafka"][1] == layers["marketlake"][1]


def test_a_tool_from_a_wheel_keeps_what_lies_beside_its_root(whole: World) -> None:
    tool = whole.bom.tool("postgresql")
    place = whole.cache.place(tool, this_platform())
    (place / "receipt.json").unlink()
    whole.install("postgresql", root="server/pg")
    (place / "libs").mkdir()
    (place / "libs/libpq.so").touch()
    built = whole.build("postgresql")["postgresql"]
    contents = whole.contents(built)
    assert contents["opt/postgresql"].linkname == "/usr/lib/marketlake/postgresql/server/pg"
    assert "usr/lib/marketlake/postgresql/libs/libpq.so" in contents
    assert built.executables["postgresql"] == "/opt/postgresql/bin/postgresql"


def test_an_image_of_two_tools_says_where_each_is(whole: World) -> None:
    built = whole.build("kafka")["kafka"]
    assert built.roots == {"kafka": "/opt/kafka", "java": "/opt/java"}
    assert built.executables["java"] == "/opt/java/bin/java"
    path = next(each for each in whole.config(built)["config"]["Env"] if each.startswith("PATH="))
    assert path.startswith("PATH=/opt/kafka/bin:/opt/java/bin:")


def test_a_shell_and_its_commands(whole: World) -> None:
    built = whole.build("busybox")["busybox"]
    contents = whole.contents(built)
    assert contents["usr/bin/sh"].linkname == "busybox"
    assert contents["bin"].linkname == "usr/bin"
    assert built.version == "1.35.0"
    assert built.executables["busybox"] == "/bin/busybox"
    assert whole.config(built)["config"]["Cmd"] == ["/bin/sh"]


@pytest.mark.parametrize(("source", "pages"), [("registry", False), ("vendor", True)])
def test_pages_are_where_the_release_has_them(world: World, source: str, pages: bool) -> None:
    world.install("jaeger", "minio", source=source)
    built = world.build("jaeger", "minio")
    assert built["jaeger"].has_pages is pages
    assert built["minio"].has_pages


def test_the_runtime_is_compiled_and_knows_no_machine(whole: World) -> None:
    built = whole.build("marketlake")["marketlake"]
    contents = whole.contents(built)
    assert f"{SITE}/marketlake/__pycache__/__init__.cpython-{TAG.replace('.', '')}.pyc" in contents
    assert f"usr/lib/python{TAG}/__pycache__/module.cpython-{TAG.replace('.', '')}.pyc" in contents
    assert not [
        path
        for path in contents
        if path.endswith(("direct_url.json", ".lock", ".pyx", "README.md", "script"))
    ]
    assert f"{SITE}/prefect/tests" not in contents
    assert "direct_url" not in whole.read(built, f"{SITE}/prefect-0.1.0.dist-info/RECORD")
    assert whole.read(built, "opt/marketlake/bin/prefect").startswith("#!/opt/marketlake/bin/python\n")
    assert "from marketlake.cli import main" in whole.read(built, "opt/marketlake/bin/marketlake")
    assert contents["opt/marketlake/bin/python"].linkname == f"/usr/bin/python{TAG}"
    assert f"version = {TAG}.2" in whole.read(built, "opt/marketlake/pyvenv.cfg")
    assert built.executables == {name: f"/opt/marketlake/bin/{name}" for name in ("marketlake", "prefect")}
    parts = [part["purl"] for key in built.layers for part in whole.store.read().layers[key].parts]
    assert {"pkg:pypi/prefect@0.1.0", "pkg:pypi/marketlake@0.1.0"} <= set(parts)


def test_changed_sources_leave_the_libraries_alone(whole: World, debian: Distribution) -> None:
    former = whole.build("marketlake")["marketlake"]
    (whole.workspace / "runtime/new.py").write_text("1\n")
    now = whole.build("marketlake")["marketlake"]
    assert now.layers[:-1] == former.layers[:-1]
    assert now.layers[-1] != former.layers[-1]
    assert sum("--require-hashes --only-binary" in line for line in debian.asked) == 1


def test_changed_locks_change_the_libraries(whole: World, debian: Distribution) -> None:
    former = whole.build("marketlake")["marketlake"]
    debian.requirements = "prefect==0.1.0\nother==2\n"
    assert whole.build("marketlake")["marketlake"].layers[-2] != former.layers[-2]


def test_what_uv_refuses_is_told(whole: World, debian: Distribution) -> None:
    (debian.folder / "refuses").touch()
    with pytest.raises(ImageError, match=r"(?s)runtime's image cannot be built.*no such version"):
        whole.build("marketlake")


def test_packages_change_when_their_user_asks(whole: World, debian: Distribution) -> None:
    former = whole.build("busybox")["busybox"]
    debian.add("busybox-static", {"bin/busybox": b"#!/bin/sh\necho new\n"}, version="1:1.36.0-1")
    assert whole.build("busybox")["busybox"] == former
    now = whole.build("busybox", refresh=True)["busybox"]
    assert now.version == "1.36.0"
    assert now.digest != former.digest


def test_an_unreadable_memory_of_packages_is_made_anew(whole: World) -> None:
    former = whole.build("busybox")["busybox"]
    (whole.store.folder / "packages.json").write_text("{")
    assert whole.build("busybox")["busybox"] == former


def test_the_clusters_images_are_left_out_where_their_tools_are_missing(
    world: World, debian: Distribution
) -> None:
    world.install(*{tool for recipe in CATALOGUE.values() if not recipe.group for tool in recipe.tools})
    built = world.build()
    assert "minio" in built
    assert "coredns" not in built
    assert any("coredns is left out" in line for line in world.lines)


def test_a_missing_tool_of_the_platform_is_told(world: World) -> None:
    with pytest.raises(ToolMissingError, match="minio"):
        world.build()


def test_an_unknown_image_is_told(world: World) -> None:
    with pytest.raises(UnknownImageError, match="no image is called 'nothing'; there are minio"):
        world.build("nothing")


def test_images_hold_programs_for_linux(world: World) -> None:
    with pytest.raises(ImageError, match="darwin-arm64: build them on Linux"):
        world.build("minio", platform=Platform("darwin", "arm64"))


def test_pushes_are_remembered_until_the_image_is_another(world: World) -> None:
    world.install("minio")
    world.build("minio")
    world.building().record_push(["minio"], "r.test/a")
    assert image.locate("minio", registry="r.test/a", store=world.store, bom=world.bom).reference.startswith(
        "r.test/a/"
    )
    world.install("minio", content="two")
    assert world.build("minio")["minio"].pushed == ()


def test_pushes_are_remembered_by_the_same_image_built_again(world: World) -> None:
    world.install("minio")
    built = world.build("minio")["minio"]
    world.building().record_push(["minio"], "r.test/a")
    world.store.blob(world.store.manifest(built)["layers"][0]["digest"]).unlink()
    assert world.build("minio")["minio"].pushed == ("r.test/a",)


def test_another_run_is_waited_for(world: World, start: Callable[..., Any]) -> None:
    world.install("minio")
    world.store.folder.mkdir(parents=True)
    lock = world.store.folder / ".lock"
    lock.touch()
    holder = start(
        f"import fcntl, time\nfile = open({str(lock)!r})\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\ntime.sleep(0.5)"
    )
    assert holder.stdout.readline().strip() == "held"
    world.build("minio")
    assert "waiting for another run that builds images to end" in world.lines


def test_what_a_killed_run_left_is_removed(world: World) -> None:
    world.install("minio")
    world.store.staging.mkdir(parents=True)
    (world.store.staging / "blob-left").touch()
    world.build("minio")
    assert not world.store.staging.exists()


@pytest.mark.parametrize("members", [{}, {"usr/bin/busybox": Member(b"no program")}])
def test_a_shell_needs_a_busybox_that_runs(members: dict[str, Member], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="busybox"):
        with_shell(members, tmp_path)


def test_a_base_without_python_is_told() -> None:
    with pytest.raises(ImageError, match=r"brings no python3\.X"):
        Python.among([])


def test_a_base_without_loader_cannot_run_python(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no dynamic loader"):
        Python("3.11", "3.11.2").compile(tmp_path, ["usr/lib"])


def test_a_python_that_does_not_run_is_told(tmp_path: Path) -> None:
    loader = tmp_path / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    loader.parent.mkdir(parents=True)
    loader.write_text("#!/bin/sh\necho no such file >&2\nexit 1\n")
    loader.chmod(0o755)
    with pytest.raises(ImageError, match=r"(?s)does not run on this machine.*no such file"):
        Python("3.11", "3.11.2").compile(tmp_path, ["usr/lib/python3.11"])


def test_a_module_that_does_not_compile_is_no_error(tmp_path: Path) -> None:
    loader = tmp_path / "usr/lib64/ld-linux-x86-64.so.2"
    loader.parent.mkdir(parents=True)
    loader.write_text(f'#!/bin/sh\nshift 3\nexec env -u PYTHONHOME {sys.executable} "$@"\n')
    loader.chmod(0o755)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/good.py").write_text("1\n")
    (tmp_path / "site/bad.py").write_text("print 'two'\n")
    Python(TAG, f"{TAG}.2").compile(tmp_path, ["site"])
    assert [path.name.split(".")[0] for path in tmp_path.rglob("*.pyc")] == ["good"]


def test_uv_is_the_pinned_one_or_on_path(
    tmp_path: Path, debian: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache")
    assert find_uv(cache) == debian.folder / "bin/uv"
    pinned = cache.folder / "bootstrap/1/bin/uv"
    pinned.parent.mkdir(parents=True)
    pinned.touch()
    assert find_uv(cache) == pinned
    pinned.unlink()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ImageError, match="make images"):
        find_uv(cache)


def test_a_runtime_without_its_program_is_told(whole: World, debian: Distribution) -> None:
    uv = debian.folder / "bin/uv"
    uv.write_text(
        uv.read_text().replace("prefect.cli:app", "").replace('("prefect", "")', '("prefect", None)')
    )
    with pytest.raises(ImageError, match="prefect declares no program prefect"):
        whole.build("marketlake")


def test_programs_of_the_same_name_are_told(whole: World, debian: Distribution) -> None:
    uv = debian.folder / "bin/uv"
    uv.write_text(uv.read_text().replace('"README.md', '"same.py'))
    with pytest.raises(ImageError, match=r"several of the runtime's libraries bring same\.py"):
        whole.build("marketlake")
