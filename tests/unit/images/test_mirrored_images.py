"""Images of a mirror: their layers are copied, so what a place cannot build is there all the same."""

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tests.unit.images.distribution import Distribution
from tests.unit.images.test_building import TOOLS, World
from toolchain.cache import Cache
from toolchain.images.store import Built, Store
from toolchain.mirroring import images as mirrored
from toolchain.mirroring.folder import MirrorFolder
from toolchain.platforms import this_platform

IMAGES = ("minio", "postgresql", "busybox")
PREFIX = f"images/{this_platform()}"


class Mirrored(World):
    """A world whose images are also in a mirror."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.mirror = folder / "mirror"
        self.install(*TOOLS)

    def write(self, names: Collection[str] = IMAGES) -> set[str]:
        """Write the images into the mirror, and return the files that are new."""
        with MirrorFolder.opened(self.mirror, lambda: None) as opened:
            mirrored.write_images(opened, names, self.cache, this_platform(), self)
            assert all(opened.has(name) for name in opened.names)
            return opened.written

    def build_elsewhere(self, *names: str) -> dict[str, Built]:
        """Build with an empty store and the same tools, brought at another time, and the mirror."""
        elsewhere = Cache(self.folder / "elsewhere")
        shutil.copytree(self.cache.tools, elsewhere.tools, symlinks=True)
        for path in elsewhere.tools.glob("*/*/receipt.json"):
            told = {
                **json.loads(path.read_text()),
                "installed_at": "later",
                "seconds": 3,
                "mirror": "/a/mirror",
            }
            path.write_text(json.dumps(told))
        self.cache = elsewhere
        self.steps.clear()
        self.lines.clear()
        return self.build(*names, environment={"MARKETLAKE_TOOL_MIRROR": str(self.mirror)})


@pytest.fixture
def world(tmp_path: Path, debian: Distribution, monkeypatch: pytest.MonkeyPatch) -> Mirrored:
    world = Mirrored(tmp_path)

    def build(_progress: object, names: Collection[str], **_options: Any) -> dict[str, Built]:
        return world.build(*names)

    monkeypatch.setattr(mirrored, "build_images", build)
    return world


def test_the_images_of_a_mirror_are_those_that_were_built(
    world: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write()
    built = world.build(*IMAGES)
    monkeypatch.setenv("PATH", "/nowhere")  # the place has no apt
    there = world.build_elsewhere(*IMAGES)
    assert {name: image.digest for name, image in there.items()} == {
        name: image.digest for name, image in built.items()
    }
    assert not [step for step in world.steps if step.startswith(("packing", "writing", "asking"))]
    assert "copying minio 1.5 from the mirror" in world.steps


def test_the_mirror_is_an_oci_layout(world: Mirrored) -> None:
    world.write()
    store = Store.of_mirror(world.mirror, this_platform())
    index = json.loads((store.layout / "index.json").read_text())
    assert len(index["manifests"]) == len(IMAGES)
    for each in index["manifests"]:
        manifest = json.loads(store.blob(each["digest"]).read_text())
        assert all(store.blob(layer["digest"]).is_file() for layer in manifest["layers"])


def test_what_is_there_is_not_written_again(world: Mirrored) -> None:
    assert f"{PREFIX}/index.json" in world.write()
    assert world.write() == set()


def test_an_image_that_changed_takes_the_place_of_the_former(world: Mirrored) -> None:
    world.write()
    blobs = set((world.mirror / PREFIX / "layout/blobs/sha256").iterdir())
    world.install("minio", content="two")
    new = world.write()
    assert len([name for name in new if "blobs" in name]) == 3, "a layer, a configuration, a manifest"
    assert len(set((world.mirror / PREFIX / "layout/blobs/sha256").iterdir())) == len(blobs)
    listed = (world.mirror / "SHA256SUMS").read_text()
    assert listed.count("/blobs/") == len(blobs), "what was swept away is listed no more"


def test_a_run_adds_to_the_images_of_a_former_one(world: Mirrored) -> None:
    world.write(["minio"])
    world.write(["busybox"])
    assert set(Store.of_mirror(world.mirror, this_platform()).read().images) == {"minio", "busybox"}


def test_a_damaged_layer_is_told_and_made_here(world: Mirrored) -> None:
    world.write(["minio"])
    store = Store.of_mirror(world.mirror, this_platform())
    (built,) = store.read().images.values()
    store.blob(store.manifest(built)["layers"][-1]["digest"]).write_bytes(b"damaged")
    assert world.build_elsewhere("minio")["minio"].digest == built.digest
    assert any("is damaged: what it holds is made here" in line for line in world.lines)
    assert "packing minio" in world.steps


def test_a_layer_that_the_mirror_lost_is_made_here(world: Mirrored) -> None:
    world.write(["minio"])
    store = Store.of_mirror(world.mirror, this_platform())
    (built,) = store.read().images.values()
    store.blob(store.manifest(built)["layers"][-1]["digest"]).unlink()
    assert world.build_elsewhere("minio")["minio"].digest == built.digest
    assert "packing minio" in world.steps
