"""The images of a mirror: a store of the kind that images are built into, from which their layers are taken."""

import json
import shutil
from collections.abc import Collection, Iterator

from toolchain.cache import Cache
from toolchain.images.catalogue import CATALOGUE
from toolchain.images.making import build_images
from toolchain.images.store import Built, Index, Store, write_json
from toolchain.mirroring.folder import MirrorFolder
from toolchain.platforms import Platform
from toolchain.progress import Progress

SERVICES = "kubernetes"
"""The group of tools that comes with services that run in images."""


def images_of(groups: Collection[str]) -> list[str]:
    """Return the images that are needed where these groups of tools are."""
    return [recipe.name for recipe in CATALOGUE.values() if (recipe.group or SERVICES) in groups]


def write_images(
    mirror: MirrorFolder, names: Collection[str], cache: Cache, platform: Platform, progress: Progress
) -> dict[str, Built]:
    """Build images and copy them.

    Raises:
        ImageError: one cannot be built; the message says why.
        ToolMissingError: a tool of one is not installed.
    """
    built = build_images(progress, list(names))
    progress.start("images", f"{len(built)} images")
    source, target = Store.of(cache), Store.of_mirror(mirror.path, platform)
    for image in built.values():
        for digest in _blobs(source, image):
            name = target.blob(digest).relative_to(mirror.path).as_posix()
            if not mirror.has(name):
                progress.step(f"copying {digest}")
                shutil.copyfile(source.blob(digest), mirror.staging / "blob")
                mirror.add({name: mirror.staging / "blob"})
    there, known = target.read(), source.read().layers
    layers = {key: known[key] for image in built.values() for key in image.layers}
    index = Index({**there.images, **built}, {**there.layers, **layers})
    target.write(index)
    target.sweep(index)
    if source.packages.exists():
        write_json(target.packages, json.loads(source.packages.read_text()))
    own = [target.layout / "oci-layout", target.layout / "index.json", *target.folder.glob("*.json")]
    mirror.record([path.relative_to(mirror.path).as_posix() for path in own])
    return built


def _blobs(store: Store, built: Built) -> Iterator[str]:
    """Return the digests of all that an image consists of."""
    manifest = store.manifest(built)
    yield built.digest
    yield manifest["config"]["digest"]
    for layer in manifest["layers"]:
        yield layer["digest"]
