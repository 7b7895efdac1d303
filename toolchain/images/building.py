"""Builds images: each layer once, each image only when something it is made from has changed."""

import fcntl
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import certifi

from toolchain import __file__ as _package
from toolchain.bom import Bom, load_bom
from toolchain.cache import RECEIPT, Cache, InstalledTool, locate
from toolchain.errors import ToolMissingError
from toolchain.images.bases import PACKAGES, Python, compiled_python, foundation, with_shell
from toolchain.images.catalogue import (
    CATALOGUE,
    HOME,
    NOBODY,
    RUNTIME,
    RUNTIME_FOLDER,
    Base,
    Recipe,
    recipe_of,
)
from toolchain.images.errors import ImageError
from toolchain.images.layer import EPOCH, Member, add_blob, link, tree, write_layer
from toolchain.images.packages import Package, Packages, distribution
from toolchain.images.runtime import SCRIPTS, Runtime, find_uv
from toolchain.images.store import Built, Index, Layer, Store, write_json
from toolchain.platforms import Platform, this_platform
from toolchain.progress import Progress, duration

_LAYER_CODE = ("bases.py", "layer.py", "packages.py", "runtime.py")
"""Modules that decide what is in a layer: when they change, all are made anew."""
_IMAGE_CODE = ("building.py", "catalogue.py")
"""Modules that decide what an image says of itself."""
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_FOR_COMPILERS = re.compile(r"/(include|pgxs|pkgconfig)(/|$)|\.[ah]$")
_CREATED = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))


@dataclass(frozen=True)
class _Plan:
    """A layer, and how it is made if the store does not have it."""

    key: str
    make: Callable[[Sequence[Layer]], Layer]
    """Given the layers below."""


class Building:
    """One run of the builder."""

    def __init__(
        self,
        progress: Progress,
        *,
        cache: Cache | None = None,
        bom: Bom | None = None,
        platform: Platform | None = None,
        workspace: Path | None = None,
        refresh: bool = False,
    ) -> None:
        self._cache = cache or Cache.default()
        self._bom = bom or load_bom()
        self._platform = platform or this_platform()
        self._progress = progress
        self._refresh = refresh
        self._workspace = workspace
        self.store = Store.of(self._cache)
        self._packages = Packages(self.store.folder / "apt", progress.step)

    def build(self, names: Sequence[str] | None = None) -> dict[str, Built]:
        """Build the named images; None: all whose tools are installed, of the cluster's only these.

        Raises:
            UnknownImageError: a name that has no recipe.
            ToolMissingError: a tool of it is not installed.
            ImageError: one cannot be built; the message says why. Images built before it stay.
        """
        if self._platform.system != "linux":
            raise ImageError(
                f"images hold programs for Linux, and this is {self._platform}: build them on Linux"
            )
        with self._lock():
            recipes = [recipe_of(name) for name in names] if names else self._buildable()
            index = self.store.read()
            built = {}
            for position, recipe in enumerate(recipes, 1):
                self._progress.start(recipe.name, f"{position}/{len(recipes)}")
                index = self._build(recipe, index)
                built[recipe.name] = index.images[recipe.name]
            self._forget_unused(index)
        return built

    def record_push(self, names: Sequence[str], registry: str) -> None:
        """Note that images now are in a registry."""
        with self._lock():
            index = self.store.read()
            images = dict(index.images)
            for name in names:
                pushed = sorted({*images[name].pushed, registry})
                images[name] = replace(images[name], pushed=tuple(pushed))
            self.store.write(replace(index, images=images))

    def _buildable(self) -> list[Recipe]:
        chosen = []
        for recipe in CATALOGUE.values():
            try:
                self._tools(recipe)
            except ToolMissingError as error:
                if recipe.group is None:
                    raise
                self._progress.line(f"- {recipe.name} is left out: {error}")
            else:
                chosen.append(recipe)
        return chosen

    def _tools(self, recipe: Recipe) -> list[InstalledTool]:
        return [locate(tool, bom=self._bom, cache=self._cache) for tool in recipe.tools]

    def _build(self, recipe: Recipe, index: Index) -> Index:
        began = time.monotonic()
        tools = self._tools(recipe)
        plans = [*self._base(recipe.base), *map(self._tool_layer, tools)]
        if recipe.name == RUNTIME:
            plans += self._runtime_layers()
        keys = tuple(plan.key for plan in plans)
        key = _key(self._digest(_IMAGE_CODE), recipe, keys, [tool.receipt.to_json() for tool in tools])
        former = index.images.get(recipe.name)
        if former and former.key == key and self._is_whole(former, index):
            return index
        layers = dict(index.layers)
        stack: list[Layer] = []
        for plan in plans:
            known = layers.get(plan.key)
            if known is None or not self.store.blob(known.digest).is_file():
                layers[plan.key] = plan.make(stack)
            stack.append(layers[plan.key])
            index = Index(index.images, layers)
        built = self._image(recipe, tools, key, keys, stack)
        if former and former.digest == built.digest:
            built = replace(built, pushed=former.pushed)
        index = Index({**index.images, recipe.name: built}, layers)
        self.store.write(index)
        self._progress.line(
            f"✓ {recipe.name} {built.version}, {built.size / 1e6:.0f} MB, {duration(time.monotonic() - began)}, "
            f"{built.digest}"
        )
        return index

    def _is_whole(self, built: Built, index: Index) -> bool:
        digests = [index.layers[key].digest for key in built.layers if key in index.layers]
        return len(digests) == len(built.layers) and all(
            self.store.blob(digest).is_file() for digest in [built.digest, *digests]
        )

    # What the layers are made from.

    def _base(self, base: Base) -> list[_Plan]:
        plans = [
            _Plan(
                _key(self._code, "foundation", Path(certifi.where()).read_text()),
                lambda _below: self._write(foundation(), "users and certificates"),
            )
        ]
        if base is Base.STATIC:
            return plans
        common = self._planned[Base.SHELL if base is Base.SHELL else Base.GLIBC]
        plans.append(_Plan(_key(self._code, common), lambda _below: self._libraries(common)))
        if base is Base.PYTHON:
            added = [package for package in self._planned[Base.PYTHON] if package not in common]
            plans.append(
                _Plan(_key(self._code, common, added), lambda _below: self._python_layer(common, added))
            )
        return plans

    def _libraries(self, packages: list[Package]) -> Layer:
        members = with_shell(self._packages.members(packages), self.store.staging)
        return self._write(members, "libraries and shell of the distribution", packages)

    def _python_layer(self, common: list[Package], added: list[Package]) -> Layer:
        below = self._packages.members(common)
        own = self._packages.members(added)
        python = Python.among(added)
        self._progress.step("compiling Python's standard library")
        compiled = compiled_python({**below, **own}, python, self.store.staging)
        new = {path: member for path, member in compiled.items() if path in own or path not in below}
        return self._write(new, f"Python {python.full_version} of the distribution", added)

    def _tool_layer(self, tool: InstalledTool) -> _Plan:
        def make(_below: Sequence[Layer]) -> Layer:
            self._progress.step(f"packing {tool.name}")
            return write_layer(self.store, tool_members(tool), f"{tool.name} {tool.version}")

        return _Plan(_key(self._code, tool.receipt.to_json()), make)

    def _runtime_layers(self) -> list[_Plan]:
        runtime = self._runtime
        python = Python.among(self._planned[Base.PYTHON])
        requirements = runtime.requirements()
        base = [plan.key for plan in self._base(Base.PYTHON)]
        libraries = _key(self._code, base, requirements)
        return [
            _Plan(libraries, lambda below: runtime.libraries_layer(requirements, python, below)),
            _Plan(_key(libraries, runtime.sources()), lambda below: runtime.own_layer(python, below)),
        ]

    def _write(self, members: dict[str, Member], title: str, packages: Sequence[Package] = ()) -> Layer:
        self._progress.step(f"writing {title}")
        return write_layer(self.store, members, title, [package.component for package in packages])

    @cached_property
    def _code(self) -> str:
        return self._digest(_LAYER_CODE)

    def _digest(self, names: Sequence[str]) -> str:
        folder = Path(_package).parent / "images"
        return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()

    @cached_property
    def _runtime(self) -> Runtime:
        given = {"workspace": self._workspace} if self._workspace else {}
        return Runtime(self.store, self._platform, find_uv(self._cache), self._progress.step, **given)

    @cached_property
    def _planned(self) -> dict[Base, list[Package]]:
        """The packages of each base; remembered, so that an image changes when its user asks for it."""
        memory = self.store.folder / "packages.json"
        key = _key({base: list(names) for base, names in PACKAGES.items()}, distribution())
        if not self._refresh:
            try:
                told = json.loads(memory.read_text())
                if told["key"] == key:
                    return {
                        Base(base): [Package(**entry) for entry in entries]
                        for base, entries in told["packages"].items()
                    }
            except (OSError, ValueError, KeyError, TypeError):
                pass  # nothing is remembered: ask apt
        else:
            self._packages.update()
        self._progress.step("asking apt for packages")
        planned = {base: self._packages.plan(names) for base, names in PACKAGES.items() if names}
        entries = {
            str(base): [package.__dict__ for package in packages] for base, packages in planned.items()
        }
        write_json(memory, {"key": key, "packages": entries})
        return planned

    # What images consist of.

    def _image(
        self, recipe: Recipe, tools: list[InstalledTool], key: str, keys: tuple[str, ...], layers: list[Layer]
    ) -> Built:
        version = self._version(recipe, tools)
        executables, user = _executables(recipe, tools), f"{NOBODY}:{NOBODY}"
        folders = [f"/opt/{tool.name}/bin" for tool in tools]
        folders += [f"{RUNTIME_FOLDER}/bin"] if recipe.name == RUNTIME else []
        config = {
            "created": _CREATED,
            "architecture": self._platform.architecture,
            "os": "linux",
            "config": {
                "User": user,
                "Env": _environment(recipe, folders),
                "WorkingDir": "/",
                **_command(recipe, executables),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created": _CREATED, "created_by": layer.title} for layer in layers],
        }
        licences = [self._bom.tool(tool.name).licence for tool in tools] or ["Apache-2.0"]
        annotations = {
            "org.opencontainers.image.title": recipe.name,
            "org.opencontainers.image.description": recipe.purpose,
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": " AND ".join(f"({licence})" for licence in licences),
            "org.opencontainers.image.created": _CREATED,
        }
        if tools:
            annotations["org.opencontainers.image.url"] = self._bom.tool(tools[0].name).homepage
        config_digest, config_size = self._add(config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": config_digest, "size": config_size},
            "layers": [{"mediaType": _LAYER, "digest": each.digest, "size": each.size} for each in layers],
            "annotations": annotations,
        }
        digest, _ = self._add(manifest)
        from_registry = bool(tools) and tools[0].receipt.source == "registry"
        return Built(
            key=key,
            version=version,
            digest=digest,
            size=sum(layer.size for layer in layers),
            executables=executables,
            roots={tool: f"/opt/{tool}" for tool in recipe.roots},
            has_pages=not (recipe.pages_need_release and from_registry),
            architecture=self._platform.architecture,
            pinned={tool: self._bom.tool(tool).version for tool in recipe.tools},
            layers=keys,
        )

    def _version(self, recipe: Recipe, tools: list[InstalledTool]) -> str:
        if tools:
            return tools[0].version
        if recipe.name == RUNTIME:
            return self._runtime.version()
        upstream = next(each.version for each in self._planned[recipe.base] if each.name == "busybox-static")
        return upstream.rpartition(":")[2].partition("-")[0]

    def _add(self, content: dict[str, Any]) -> tuple[str, int]:
        text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        return add_blob(self.store, lambda file: file.write(text))

    # What must not happen twice at once, or stay.

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Only one run at a time works on a store; what a killed one left is removed."""
        self.store.folder.mkdir(parents=True, exist_ok=True)
        with (self.store.folder / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._progress.line("waiting for another run that builds images to end")
                fcntl.flock(file, fcntl.LOCK_EX)
            shutil.rmtree(self.store.staging, ignore_errors=True)
            self.store.staging.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.store.staging, ignore_errors=True)

    def _forget_unused(self, index: Index) -> None:
        used = {key for built in index.images.values() for key in built.layers}
        kept = {key: layer for key, layer in index.layers.items() if key in used}
        if len(kept) != len(index.layers):
            index = replace(index, layers=kept)
            self.store.write(index)
        self.store.sweep(index)


def tool_members(tool: InstalledTool) -> dict[str, Member]:
    """A tool as it lies in an image: at /opt/NAME.

    A tool from a wheel finds its libraries beside its root. So the whole lies aside, and /opt/NAME is a link to
    the root in it.
    """
    root = Path(tool.receipt.root)
    if root == Path():
        return _members(tool.root, f"opt/{tool.name}")
    whole = tool.root.parents[len(root.parts) - 1]
    aside = f"usr/lib/{RUNTIME}/{tool.name}"
    return {**_members(whole, aside), f"opt/{tool.name}": link(f"/{aside}/{root}")}


def _members(folder: Path, target: str) -> dict[str, Member]:
    """What lies in a folder, but neither its receipt nor what only compilers read."""
    return {
        path: member
        for path, member in tree(folder, target)
        if path != f"{target}/{RECEIPT}" and not _FOR_COMPILERS.search(path)
    }


def _executables(recipe: Recipe, tools: Sequence[InstalledTool]) -> dict[str, str]:
    if recipe.name == RUNTIME:
        return {program: f"{RUNTIME_FOLDER}/bin/{program}" for program in SCRIPTS}
    if recipe.base is Base.SHELL:
        return {"busybox": "/bin/busybox", "sh": "/bin/sh"}
    return {
        program: f"/opt/{tool.name}/bin/{program}" for tool in tools for program in sorted(tool.executables)
    }


def _command(recipe: Recipe, executables: dict[str, str]) -> dict[str, list[str]]:
    """What a container does that is told nothing: the program of that name, or a shell."""
    if recipe.base is Base.SHELL:
        return {"Cmd": ["/bin/sh"]}
    return {"Entrypoint": [executables[recipe.name]]} if recipe.name in executables else {}


def _environment(recipe: Recipe, folders: list[str]) -> list[str]:
    path = ":".join([*folders, "/usr/local/bin", "/usr/bin", "/bin"])
    told = {"HOME": HOME, "PATH": path}
    if recipe.base in {Base.GLIBC, Base.PYTHON}:
        told["LANG"] = "C.UTF-8"
    if recipe.base is Base.PYTHON:
        # Debian's OpenSSL looks for its certificates where a package that is not installed would put them.
        told |= {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt", "PYTHONDONTWRITEBYTECODE": "1"}
    return [f"{name}={value}" for name, value in told.items()]


def _key(*made_from: Any) -> str:
    text = json.dumps(made_from, sort_keys=True, default=lambda value: value.__dict__)
    return hashlib.sha256(text.encode()).hexdigest()
