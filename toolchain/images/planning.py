"""What the layers of an image are made from."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import certifi

from toolchain.cache import RECEIPT, InstalledTool
from toolchain.images.bases import PACKAGES, Python, compiled_python, foundation, with_shell
from toolchain.images.catalogue import HOME, NOBODY, RUNTIME, RUNTIME_FOLDER, Base, Recipe
from toolchain.images.keys import code_of, key_of
from toolchain.images.layer import Member, link, tree, write_layer
from toolchain.images.packages import Package, Packages, distribution
from toolchain.images.runtime import Runtime
from toolchain.images.store import Layer, Store, write_json

_CODE = ("planning.py", "bases.py", "layer.py", "packages.py", "runtime.py")
"""Modules that decide what is in a layer."""
_FOR_COMPILERS = re.compile(r"/(include|pgxs|pkgconfig)(/|$)|\.[ah]$")


@dataclass(frozen=True)
class Plan:
    """A layer, and how it is made if the store does not have it."""

    key: str
    make: Callable[[Sequence[Layer]], Layer]
    """Given the layers below."""


class Planning:
    """Plans the layers of images."""

    def __init__(
        self,
        store: Store,
        runtime: Callable[[], Runtime],
        step: Callable[[str], None],
        *,
        refresh: bool,
        mirror: Store | None = None,
    ) -> None:
        """Plan for a store.

        Args:
            store: keeps the layers, and remembers the distribution's packages.
            runtime: asked only for the runtime's own image.
            step: called with what is being done.
            refresh: ask the distribution for newer packages.
            mirror: remembers packages, too: for a store that does not yet.
        """
        self._store = store
        self._mirror = mirror
        self._find_runtime = runtime
        self._step = step
        self._refresh = refresh
        self._packages = Packages(store.folder / "apt", step)

    def layers(self, recipe: Recipe, tools: Sequence[InstalledTool]) -> list[Plan]:
        """The layers of an image, bottom first."""
        plans = [*self._base(recipe.base), *map(self._tool_layer, tools)]
        return [*plans, *self._runtime_layers()] if recipe.name == RUNTIME else plans

    def version(self, recipe: Recipe, tools: Sequence[InstalledTool]) -> str:
        """That of the first tool, of the runtime, or of the shell."""
        if tools:
            return tools[0].version
        if recipe.name == RUNTIME:
            return self._runtime.version()
        upstream = next(each.version for each in self._planned[recipe.base] if each.name == "busybox-static")
        return upstream.rpartition(":")[2].partition("-")[0]

    def _base(self, base: Base) -> list[Plan]:
        plans = [
            Plan(
                key_of(_made_by(), "foundation", Path(certifi.where()).read_text()),
                lambda _below: self._write(foundation(), "users and certificates"),
            )
        ]
        if base is Base.STATIC:
            return plans
        common = self._planned[Base.SHELL if base is Base.SHELL else Base.GLIBC]
        plans.append(Plan(key_of(_made_by(), common), lambda _below: self._libraries(common)))
        if base is Base.PYTHON:
            added = [package for package in self._planned[Base.PYTHON] if package not in common]
            plans.append(
                Plan(key_of(_made_by(), common, added), lambda _below: self._python_layer(common, added))
            )
        return plans

    def _libraries(self, packages: list[Package]) -> Layer:
        members = with_shell(self._packages.members(packages), self._store.staging)
        return self._write(members, "libraries and shell of the distribution", packages)

    def _python_layer(self, common: list[Package], added: list[Package]) -> Layer:
        below = self._packages.members(common)
        own = self._packages.members(added)
        python = Python.among(added)
        self._step("compiling Python's standard library")
        compiled = compiled_python({**below, **own}, python, self._store.staging)
        new = {path: member for path, member in compiled.items() if path in own or path not in below}
        return self._write(new, f"Python {python.full_version} of the distribution", added)

    def _tool_layer(self, tool: InstalledTool) -> Plan:
        def make(_below: Sequence[Layer]) -> Layer:
            self._step(f"packing {tool.name}")
            return write_layer(self._store, _tool_members(tool), f"{tool.name} {tool.version}")

        return Plan(key_of(_made_by(), tool.receipt.identity), make)

    def _runtime_layers(self) -> list[Plan]:
        runtime = self._runtime
        python = Python.among(self._planned[Base.PYTHON])
        requirements = runtime.requirements()
        base = [plan.key for plan in self._base(Base.PYTHON)]
        libraries = key_of(_made_by(), base, requirements)
        return [
            Plan(libraries, lambda below: runtime.libraries_layer(requirements, python, below)),
            Plan(key_of(libraries, runtime.sources()), lambda below: runtime.own_layer(python, below)),
        ]

    def _write(self, members: dict[str, Member], title: str, packages: Sequence[Package] = ()) -> Layer:
        self._step(f"writing {title}")
        return write_layer(self._store, members, title, [package.component for package in packages])

    @cached_property
    def _runtime(self) -> Runtime:
        return self._find_runtime()

    @cached_property
    def _planned(self) -> dict[Base, list[Package]]:
        """The packages of each base; remembered, so that an image changes when its user asks for it."""
        key = key_of({base: list(names) for base, names in PACKAGES.items()}, distribution())
        if not self._refresh and (remembered := _remembered(self._store, key)) is not None:
            return remembered
        planned = None if self._refresh or self._mirror is None else _remembered(self._mirror, key)
        if planned is None:
            if self._refresh:
                self._packages.update()
            self._step("asking apt for packages")
            planned = {base: self._packages.plan(names) for base, names in PACKAGES.items() if names}
        entries = {
            str(base): [package.__dict__ for package in packages] for base, packages in planned.items()
        }
        write_json(self._store.packages, {"key": key, "packages": entries})
        return planned


def _remembered(store: Store, key: str) -> dict[Base, list[Package]] | None:
    """Return the packages that a store remembers under `key`; None: none, or others."""
    try:
        memory = json.loads(store.packages.read_text())
        if memory["key"] != key:
            return None
        return {
            Base(base): [Package(**entry) for entry in entries]
            for base, entries in memory["packages"].items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


@cache
def _made_by() -> str:
    """Of what decides how a layer is made from the same things: when it changes, all are made anew."""
    return key_of(code_of(*_CODE), HOME, NOBODY, RUNTIME, RUNTIME_FOLDER)


def _tool_members(tool: InstalledTool) -> dict[str, Member]:
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
