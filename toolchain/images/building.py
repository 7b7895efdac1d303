"""Builds images: each layer once, each image only when something it is made from has changed."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from toolchain.bom import Bom, load_bom
from toolchain.cache import Cache, InstalledTool, locate
from toolchain.errors import ToolMissingError
from toolchain.images.catalogue import CATALOGUE, Recipe, recipe_of
from toolchain.images.errors import ImageError
from toolchain.images.keys import key_of
from toolchain.images.layer import add_blob
from toolchain.images.manifest import add_image, told_by
from toolchain.images.planning import Plan, Planning
from toolchain.images.runtime import WORKSPACE, Runtime, find_uv
from toolchain.images.store import Built, Index, Layer, Store
from toolchain.platforms import Platform, this_platform
from toolchain.progress import Progress, duration
from toolchain.sources.mirror import MIRROR_VARIABLE, is_remote


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
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._cache = cache or Cache.default()
        self._bom = bom or load_bom()
        self._platform = platform or this_platform()
        self._progress = progress
        self._workspace = workspace or WORKSPACE
        self.store = Store.of(self._cache)
        named = environment.get(MIRROR_VARIABLE)
        self._mirror = (
            Store.of_mirror(Path(named), self._platform) if named and not is_remote(named) else None
        )
        self._planning = Planning(
            self.store, self._runtime, progress.step, refresh=refresh, mirror=self._mirror
        )

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
        with self.store.reserved(self._wait):
            recipes = [recipe_of(name) for name in names] if names else self._buildable()
            index = self.store.read()
            built = {}
            for position, recipe in enumerate(recipes, 1):
                self._progress.start(recipe.name, f"{position}/{len(recipes)}")
                index = self._build(recipe, index)
                built[recipe.name] = index.images[recipe.name]
            self.store.sweep(index)
        return built

    def record_push(self, names: Sequence[str], registry: str) -> None:
        """Note that images now are in a registry."""
        with self.store.reserved(self._wait):
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
        plans = self._planning.layers(recipe, tools)
        key = key_of(
            told_by(), recipe, [plan.key for plan in plans], [tool.receipt.identity for tool in tools]
        )
        former = index.images.get(recipe.name)
        if former and former.key == key and self._is_whole(former, index):
            return index
        stack: dict[str, Layer] = {}
        for plan in plans:
            layer = index.layers.get(plan.key)
            if layer is None or not self.store.blob(layer.digest).is_file():
                layer = self._mirrored(plan) or plan.make([*stack.values()])
            stack[plan.key] = layer
        built = add_image(
            self.store,
            recipe,
            tools,
            stack,
            key=key,
            version=self._planning.version(recipe, tools),
            bom=self._bom,
            platform=self._platform,
        )
        if former and former.digest == built.digest:
            built = replace(built, pushed=former.pushed)
        index = Index({**index.images, recipe.name: built}, {**index.layers, **stack})
        self.store.write(index)
        self._progress.line(
            f"✓ {recipe.name} {built.version}, {built.size / 1e6:.0f} MB, {duration(time.monotonic() - began)}, "
            f"{built.digest}"
        )
        return index

    def _mirrored(self, plan: Plan) -> Layer | None:
        """The layer as a mirror has it, which was made from the same things; its digest proves it."""
        layer = self._mirror.read().layers.get(plan.key) if self._mirror else None
        if self._mirror is None or layer is None:
            return None
        self._progress.step(f"copying {layer.title} from the mirror")
        try:
            with self._mirror.blob(layer.digest).open("rb") as blob:
                digest, _ = add_blob(self.store, lambda file: shutil.copyfileobj(blob, file, 1 << 20))
        except FileNotFoundError:
            return None
        if digest != layer.digest:
            self._progress.line(f"! {self._mirror.blob(layer.digest)} is damaged: what it holds is made here")
            return None
        return layer

    def _is_whole(self, built: Built, index: Index) -> bool:
        digests = [index.layers[key].digest for key in built.layers if key in index.layers]
        return len(digests) == len(built.layers) and all(
            self.store.blob(digest).is_file() for digest in [built.digest, *digests]
        )

    def _runtime(self) -> Runtime:
        return Runtime(
            self.store, self._platform, find_uv(self._cache), self._progress.step, workspace=self._workspace
        )

    def _wait(self) -> None:
        self._progress.line("waiting for another run that builds images to end")
