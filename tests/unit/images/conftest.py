"""Images made of a few bytes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.unit.images.distribution import Distribution, fill, on_path
from toolchain.images.layer import Member, add_blob, write_layer
from toolchain.images.store import Built, Index, Layer, Store
from toolchain.platforms import this_platform


class Shelf:
    """A store that images can be put into."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)

    def put(self, name: str, layers: Mapping[str, Layer], **more: object) -> Built:
        """An image of these layers."""
        config, size = self._json({"architecture": "amd64", "name": name})
        manifest, _ = self._json(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/json", "digest": config, "size": size},
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": each.digest,
                        "size": each.size,
                    }
                    for each in layers.values()
                ],
            }
        )
        told = {
            "key": name,
            "version": "1.0",
            "digest": manifest,
            "size": sum(layer.size for layer in layers.values()),
            "executables": {name: f"/opt/{name}/bin/{name}"},
            "roots": {},
            "has_pages": True,
            "architecture": this_platform().architecture,
            "pinned": {},
            "layers": tuple(layers),
            **more,
        }
        built = Built(**told)  # type: ignore[arg-type]
        index = self.store.read()
        self.store.write(Index({**index.images, name: built}, {**index.layers, **layers}))
        return built

    def layer(
        self, members: Mapping[str, bytes], title: str = "a layer", parts: tuple[dict[str, str], ...] = ()
    ) -> Layer:
        """A layer of these files."""
        return write_layer(
            self.store, {path: Member(content) for path, content in members.items()}, title, parts
        )

    def _json(self, content: object) -> tuple[str, int]:
        text = json.dumps(content, sort_keys=True).encode()
        return add_blob(self.store, lambda file: file.write(text))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "images")


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """The packages, made once."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("the packages of these tests are made with dpkg-deb, which is not here")
    distribution = Distribution(tmp_path_factory.mktemp("debian") / "packaged")
    fill(distribution)
    return distribution


@pytest.fixture
def debian(packaged: Distribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Distribution:
    """A distribution, whose programs are on PATH."""
    distribution = Distribution(tmp_path / "debian", packages=dict(packaged.packages))
    shutil.copytree(packaged.folder / "debs", distribution.folder / "debs", dirs_exist_ok=True)
    monkeypatch.setenv("PATH", on_path(distribution))
    return distribution


@pytest.fixture
def start() -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Starts Python programs, and ends them with the test."""
    started = []

    def start(text: str) -> "subprocess.Popen[str]":
        started.append(subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
