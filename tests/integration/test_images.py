"""Images built from what is installed here; their programs run as in a pod: as nobody, on a read-only root."""

import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolchain.cache import Cache
from toolchain.errors import ToolchainError
from toolchain.images.building import Building
from toolchain.images.catalogue import NOBODY
from toolchain.images.sbom import bill_of
from toolchain.images.store import Built, Store
from toolchain.progress import progress_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

_INSIDE = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && mount -t tmpfs none "$1/tmp" || exit 99
mount -t proc none "$1/proc" && mount --rbind /dev "$1/dev" || exit 99
root=$1; user=$2; shift 2
exec chroot --userspec="$user:$user" "$root" "$@"
"""
"""The mounts are those of a mount namespace of its own, so they end with the program."""

Inside = Callable[..., str]
NAMES = ("busybox", "minio", "postgresql", "kafka", "marketlake")


def _build(cache: Cache, *names: str) -> dict[str, Built]:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("images are built from Debian's packages, and this machine has no apt-get")
    try:
        with progress_for() as progress:
            return Building(progress, cache=cache).build(names)
    except ToolchainError as error:
        if "cannot be had" in str(error):
            pytest.skip(f"the distribution's packages cannot be had here: {error}")
        raise


@pytest.fixture(scope="module")
def cache() -> Cache:
    """The user's, in which `make test-tools` has built the images already, where a node can be made."""
    return Cache.default()


@pytest.fixture(scope="module")
def images(cache: Cache) -> dict[str, Built]:
    """One image of each base, and all that have more in them than one static program."""
    return _build(cache, *NAMES)


@contextmanager
def _another(folder: Path) -> Iterator[Cache]:
    """A cache with the user's tools, and images of its own.

    The distribution's packages are those of the user's images: they are an input.
    """
    users, made = Cache.default(), Cache(folder)
    for name in ("tools", "bootstrap"):
        (folder / name).symlink_to(users.folder / name)
    Store.of(made).folder.mkdir()
    shutil.copy(Store.of(users).folder / "packages.json", Store.of(made).folder)
    try:
        yield made
    finally:
        shutil.rmtree(Store.of(made).folder, ignore_errors=True)


@pytest.fixture(scope="module")
def inside(
    images: dict[str, Built], cache: Cache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Inside]:
    """Runs a program of an image and gives what it prints."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip(
            "only root with unshare can mount an image's root here; in a cluster the same is tested with pods"
        )
    roots: dict[str, Path] = {}

    def run(name: str, *argv: str, **environment: str) -> str:
        store = Store.of(cache)
        built = images[name]
        if name not in roots:
            roots[name] = tmp_path_factory.mktemp(name)
            roots[name].chmod(0o755)
            for layer in store.manifest(built)["layers"]:
                with tarfile.open(store.blob(layer["digest"])) as tar:
                    tar.extractall(roots[name], filter="fully_trusted")  # noqa: S202 - we built it
        config = json.loads(store.blob(store.manifest(built)["config"]["digest"]).read_text())["config"]
        told = dict(variable.split("=", 1) for variable in config["Env"])
        done = subprocess.run(
            ["unshare", "--mount", "--ipc", "sh", "-c", _INSIDE, "sh", str(roots[name]), str(NOBODY), *argv],
            env={**told, **environment, "PATH": f"{told['PATH']}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode == 99:
            pytest.skip(f"this root may not mount: {done.stderr}")
        assert done.returncode == 0, (
            f"{argv} in {name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    yield run
    for root in roots.values():
        shutil.rmtree(root)


def test_the_root_is_read_only_and_the_user_nobody(inside: Inside) -> None:
    assert inside("busybox", "/bin/sh", "-c", "id -u; id -g; id -un").split() == ["65532", "65532", "nonroot"]
    told = inside(
        "busybox",
        "/bin/sh",
        "-c",
        "touch /x 2>&1; touch /tmp/x && mkdir -p /tmp/a/b && rm -r /tmp/a && echo fine",
    )
    assert "Read-only file system" in told
    assert told.endswith("fine\n")


def test_every_program_that_an_image_names_is_there(images: dict[str, Built], inside: Inside) -> None:
    for name in ("busybox", "postgresql", "kafka", "marketlake"):
        programs, folders = images[name].executables.values(), images[name].roots.values()
        script = " && ".join(
            [f"test -x {path}" for path in programs] + [f"test -d {path}" for path in folders]
        )
        inside(name, "/bin/sh", "-c", script)


def test_a_static_program_runs_without_anything_else(images: dict[str, Built], inside: Inside) -> None:
    assert "minio version" in inside("minio", images["minio"].executables["minio"], "--version")


def test_a_database_can_be_made_and_asked(images: dict[str, Built], inside: Inside) -> None:
    initdb, postgres = (images["postgresql"].executables[name] for name in ("initdb", "postgres"))
    script = (
        f"{initdb} --no-sync --username=nobody --encoding=UTF8 --locale=C --locale-provider=builtin"
        " --builtin-locale=C.UTF-8"
        f" --pgdata=/tmp/data >/tmp/said 2>&1 || cat /tmp/said; echo 'create extension pg_trgm; select 6 * 7 as answer'"
        f" | {postgres} --single -D /tmp/data postgres"
    )
    assert 'answer = "42"' in inside("postgresql", "/bin/sh", "-c", script)


def test_java_finds_its_libraries(images: dict[str, Built], inside: Inside) -> None:
    java, kafka = images["kafka"].executables["java"], images["kafka"].roots["kafka"]
    told = inside("kafka", java, "-cp", f"{kafka}/libs/*", "kafka.tools.StorageTool", "random-uuid")
    assert len(told.split()[-1]) == 22


def test_the_runtime_runs(images: dict[str, Built], inside: Inside) -> None:
    programs = images["marketlake"].executables
    assert "collect" in inside("marketlake", programs["marketlake"], "--help")
    assert "3." in inside("marketlake", programs["prefect"], "version")


def test_every_module_of_the_runtime_can_be_imported(inside: Inside) -> None:
    script = (
        "import importlib, pkgutil, marketlake\n"
        "names = [each.name for each in pkgutil.walk_packages(marketlake.__path__, 'marketlake.')]\n"
        "[importlib.import_module(name) for name in names if not name.endswith('__main__')]\n"
        "import ssl, sqlite3, lzma, bz2, ctypes, zoneinfo, duckdb, polars, deltalake, pyarrow\n"
        "assert ssl.create_default_context().get_ca_certs(), 'no certificates'\n"
        "zoneinfo.ZoneInfo('Europe/Berlin')\n"
        "print(len(names))"
    )
    assert int(inside("marketlake", "/opt/marketlake/bin/python", "-c", script)) > 50


def test_modules_are_compiled_already(inside: Inside) -> None:
    """The root is read-only, so what is not compiled is compiled at every start."""
    script = (
        "import pathlib, sys, prefect, marketlake.cli\n"
        "late = [m.__file__ for m in list(sys.modules.values()) if getattr(m, '__cached__', None)"
        " and not pathlib.Path(m.__cached__).exists()]\n"
        "print(late)"
    )
    assert inside("marketlake", "/opt/marketlake/bin/python", "-c", script).strip() == "[]"


def test_nothing_that_builds_or_installs_is_in_the_runtime(images: dict[str, Built], cache: Cache) -> None:
    store = Store.of(cache)
    names = set()
    for layer in store.manifest(images["marketlake"])["layers"]:
        with tarfile.open(store.blob(layer["digest"])) as tar:
            names |= {member.name for member in tar if not member.issym()}  # links are busybox's commands
    unwanted = {"pip", "setuptools", "wheel", "gcc", "cc", "ld", "apt", "apt-get", "dpkg", "uv", "perl"}
    programs = {Path(name).name for name in names if Path(name).parent.name in {"bin", "sbin"}}
    packages = {
        Path(name).name for name in names if Path(name).parent.name in {"site-packages", "dist-packages"}
    }
    assert programs >= {"busybox", "marketlake", "prefect"}
    assert packages >= {"prefect", "marketlake", "polars"}
    assert not programs & unwanted
    assert not packages & unwanted
    assert not [name for name in names if "/site-packages/" in name and "/tests/" in name]


def test_debians_and_pythons_packages_are_told_with_licences(images: dict[str, Built], cache: Cache) -> None:
    bill = bill_of("marketlake", store=Store.of(cache))
    kinds = {entry["purl"].split("/")[0] for entry in bill["components"]}
    assert kinds == {"pkg:deb", "pkg:pypi"}
    licensed = [entry for entry in bill["components"] if entry.get("licenses")]
    assert len(licensed) > 0.9 * len(bill["components"])


def test_another_folder_gives_the_same_images(images: dict[str, Built], tmp_path: Path) -> None:
    """The user's were built somewhere else at another time.

    The runtime's image costs minutes: tests/unit/images build its like twice.
    """
    names = [name for name in NAMES if name != "marketlake"]
    with _another(tmp_path) as cache:
        built = _build(cache, *names)
    assert {name: built[name].digest for name in names} == {name: images[name].digest for name in names}


def test_what_has_not_changed_costs_nothing(images: dict[str, Built], cache: Cache) -> None:
    index = Store.of(cache).folder / "index.json"
    before = index.stat().st_mtime_ns
    began = time.monotonic()
    assert _build(cache, *images) == images
    assert time.monotonic() - began < 3
    assert index.stat().st_mtime_ns == before
