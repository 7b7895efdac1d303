"""The layers of the runtime's image: its locked libraries, and itself."""

import csv
import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

from toolchain.bom import RECIPES
from toolchain.cache import Cache
from toolchain.commands import run
from toolchain.errors import CommandFailedError
from toolchain.images.bases import Python
from toolchain.images.catalogue import RUNTIME, RUNTIME_FOLDER
from toolchain.images.errors import ImageError
from toolchain.images.layer import Member, link, program, tree, write_layer
from toolchain.images.store import Layer, Store
from toolchain.platforms import Platform

SCRIPTS = {RUNTIME: RUNTIME, "prefect": "prefect"}
"""Program → the distribution that declares it."""
WORKSPACE = Path(__file__).parents[2]
"""Holds uv.lock and the runtime's sources."""
BUILT_WITH = RECIPES / "wheels" / "hatchling.txt"
"""What turns the runtime's sources into a wheel, with everything that it needs itself."""
_WHEELS = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
"""Wheels for these run on the C libraries of every distribution of today."""
_LEFT_OUT = re.compile(r"(.*/)?(tests|include)/.*|.*\.(a|c|cc|cpp|h|hpp|pxd|pyx|pyi)")
"""Tests of libraries, and what only compilers and type checkers read."""
_OF_THE_INSTALLER = {"direct_url.json", "uv_cache.json", "REQUESTED", "INSTALLER"}
"""Say how and from which folder a package was installed: that would differ from machine to machine."""


@dataclass(frozen=True)
class Runtime:
    """What the runtime's layers are made from."""

    store: Store
    platform: Platform
    uv: Path
    step: Callable[[str], None]
    workspace: Path = WORKSPACE

    def requirements(self) -> str:
        """The locked libraries with their hashes, as uv.lock tells them.

        Raises:
            ImageError: the lock does not fit the sources.
        """
        return self._uv(
            "export", "--frozen", "--package", RUNTIME, "--no-dev", "--no-emit-workspace", "--no-header",
            "--no-annotate", "--quiet",
        )  # fmt: skip

    def version(self) -> str:
        """The runtime's version, as its project file tells it."""
        project = tomllib.loads((self.workspace / "runtime/pyproject.toml").read_text())
        return str(project["project"]["version"])

    def sources(self) -> str:
        """A digest of the runtime's own files."""
        digest = hashlib.sha256()
        for path in sorted((self.workspace / "runtime").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(self.workspace)}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def libraries_layer(self, requirements: str, python: Python, below: Sequence[Layer]) -> Layer:
        """The locked libraries, compiled."""
        with self._unpacked(below) as (root, site, held):
            self.step("downloading and unpacking the runtime's libraries")
            listed = held / "requirements.txt"
            listed.write_text(requirements)
            self._install(python, site, "--require-hashes", "--only-binary", ":all:", "--requirement", listed)
            return self._layer(root, site, python, "the runtime's libraries", {})

    def own_layer(self, python: Python, below: Sequence[Layer]) -> Layer:
        """The runtime itself, and the programs that it and its libraries declare."""
        with self._unpacked(below) as (root, site, held):
            self.step("building the runtime's wheel")
            self._uv(
                "build", "--wheel", "--package", RUNTIME, "--out-dir", str(held / "wheel"), "--quiet",
                "--build-constraints", str(BUILT_WITH), "--require-hashes",
            )  # fmt: skip
            wheels = sorted((held / "wheel").glob("*.whl"))
            self._install(python, site, "--no-deps", *wheels)
            installed = root / RUNTIME_FOLDER[1:] / f"lib/python{python.version}/site-packages"
            extra = {**_environment(python), **_programs([site, installed])}
            return self._layer(root, site, python, "the runtime", extra)

    @contextmanager
    def _unpacked(self, below: Sequence[Layer]) -> Iterator[tuple[Path, Path, Path]]:
        """A root folder with the layers below, an empty folder for packages, and one for anything else."""
        held = Path(tempfile.mkdtemp(prefix="runtime-", dir=self.store.staging))
        try:
            for name in ("root", "site"):
                (held / name).mkdir()
            for layer in below:
                with tarfile.open(self.store.blob(layer.digest)) as tar:
                    tar.extractall(held / "root", filter="tar")
            yield held / "root", held / "site", held
        finally:
            shutil.rmtree(held, ignore_errors=True)

    def _layer(self, root: Path, site: Path, python: Python, title: str, extra: dict[str, Member]) -> Layer:
        """The packages in `site`, compiled where they will lie."""
        shutil.rmtree(site / "bin", ignore_errors=True)
        (site / ".lock").unlink(missing_ok=True)
        _leave_out(site)
        _forget_installer(site)
        place = f"{RUNTIME_FOLDER[1:]}/lib/python{python.version}/site-packages"
        with tempfile.TemporaryDirectory(dir=self.store.staging) as aside:
            if (root / place).exists():
                (root / place).rename(Path(aside) / "below")
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            site.rename(root / place)
            self.step(f"compiling {title}")
            python.compile(root, [place])
            self.step(f"writing {title}")
            members = {**dict(tree(root / place, place)), **extra}
            return write_layer(self.store, members, title, _components(root / place))

    def _install(self, python: Python, site: Path, *what: str | Path) -> None:
        self._uv(
            "pip", "install", "--target", str(site), "--python-version", python.version,
            "--python-platform", _WHEELS[self.platform.architecture], "--link-mode", "copy", "--no-config",
            "--quiet", *map(str, what),
        )  # fmt: skip

    def _uv(self, *words: str) -> str:
        try:
            return run([self.uv, *words], cwd=self.workspace)
        except CommandFailedError as error:
            raise ImageError(f"the runtime's image cannot be built: {error}") from error


def find_uv(cache: Cache) -> Path:
    """The pinned uv that `make` installs, else the one on PATH.

    Raises:
        ImageError: there is none.
    """
    pinned = sorted((cache.folder / "bootstrap").glob("*/bin/uv"), key=lambda path: path.stat().st_mtime)
    if pinned:
        return pinned[-1]
    if on_path := shutil.which("uv"):
        return Path(on_path)
    raise ImageError(
        f"uv, which knows the runtime's libraries, is neither in {cache.folder} nor on PATH: run `make images`"
    )


def _environment(python: Python) -> dict[str, Member]:
    """What makes the folder one that Python takes its packages from."""
    told = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python.full_version}\n"
    folder = RUNTIME_FOLDER[1:]
    return {
        f"{folder}/pyvenv.cfg": Member(told.encode()),
        f"{folder}/bin/python": link(f"/usr/bin/python{python.version}"),
        f"{folder}/bin/python3": link("python"),
    }


def _programs(sites: Sequence[Path]) -> dict[str, Member]:
    found = {}
    for name, distribution in SCRIPTS.items():
        folders = [path for site in sites for path in site.glob(f"{distribution}-*.dist-info")]
        entries = [
            entry
            for path in folders
            for entry in PathDistribution(path).entry_points.select(group="console_scripts", name=name)
        ]
        if not entries:
            raise ImageError(f"the distribution {distribution} declares no program {name}")
        script = (
            f"#!{RUNTIME_FOLDER}/bin/python\nimport sys\n\nfrom {entries[0].module} import {entries[0].attr}\n\n"
            f'if __name__ == "__main__":\n    sys.exit({entries[0].attr}())\n'
        )
        found[f"{RUNTIME_FOLDER[1:]}/bin/{name}"] = program(script.encode())
    return found


def _leave_out(site: Path) -> None:
    for path in site.rglob("*"):
        if path.is_file() and _LEFT_OUT.fullmatch(path.relative_to(site).as_posix()):
            path.unlink()
    for parent, _, _ in os.walk(site, topdown=False):
        if not any(Path(parent).iterdir()):
            Path(parent).rmdir()


def _forget_installer(site: Path) -> None:
    """Remove what depends on the machine that installed, from the packages' own lists, too.

    That is as well a file that several packages bring: which one stays depends on which was unpacked last.

    Raises:
        ImageError: such a file is part of a program.
    """
    records = {path: _record(path) for path in sorted(site.glob("*.dist-info/RECORD"))}
    claims: dict[str, set[str]] = {}
    for rows in records.values():
        for name, proof, *_ in rows:
            claims.setdefault(name, set()).add(proof)
    dropped = {name for name, proofs in claims.items() if len(proofs) > 1}
    if programs := sorted(name for name in dropped if Path(name).suffix in {".py", ".so"}):
        raise ImageError(f"several of the runtime's libraries bring {programs[0]}, and each another one")
    for record, rows in records.items():
        kept = []
        for row in rows:
            path = Path(row[0])
            if row[0] in dropped or (path.name in _OF_THE_INSTALLER and path.parent.suffix == ".dist-info"):
                (site / path).unlink(missing_ok=True)
            elif (site / path).exists():
                kept.append(row)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(sorted(kept))
        record.write_text(text.getvalue())


def _record(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text())))


def _components(site: Path) -> list[dict[str, Any]]:
    parts = []
    for path in sorted(site.glob("*.dist-info")):
        told = PathDistribution(path).metadata
        name = told["Name"].lower().replace("_", "-").replace(".", "-")
        part = {
            "type": "library",
            "name": name,
            "version": told["Version"],
            "purl": f"pkg:pypi/{name}@{told['Version']}",
        }
        parts.append(part)
    return parts
