"""The folder of built images: one OCI image layout, and an index of what each image is and was made from."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toolchain.cache import Cache
from toolchain.platforms import Platform

_FORMAT = 1


@dataclass(frozen=True)
class Layer:
    """A layer that lies in the store."""

    digest: str
    """``sha256:…`` of the tar file; layers are not compressed, so it is the diff id as well."""
    size: int
    """Bytes."""
    title: str
    """What it holds."""
    parts: tuple[Mapping[str, Any], ...] = ()
    """CycloneDX components of what it holds."""


@dataclass(frozen=True)
class Built:
    """An image that lies in the store."""

    key: str
    """Of everything it was made from: another one makes it stale."""
    version: str
    digest: str
    """Of its manifest."""
    size: int
    """Bytes of all its layers."""
    executables: Mapping[str, str]
    roots: Mapping[str, str]
    has_pages: bool
    architecture: str
    pinned: Mapping[str, str]
    """Tool → version that the bill of materials asked for."""
    layers: tuple[str, ...]
    """Keys of its layers, bottom first."""
    pushed: tuple[str, ...] = ()
    """Registries that it was pushed to, with prefix."""


@dataclass(frozen=True)
class Index:
    """All that the store knows."""

    images: Mapping[str, Built] = field(default_factory=dict)
    layers: Mapping[str, Layer] = field(default_factory=dict)
    """By the key of what they were made from."""


@dataclass(frozen=True)
class Store:
    """The images of one cache."""

    folder: Path

    @classmethod
    def of(cls, cache: Cache) -> "Store":
        """The store of a cache."""
        return cls(cache.folder / "images")

    @classmethod
    def of_mirror(cls, folder: Path, platform: Platform) -> "Store":
        """The store for a platform in a mirror."""
        return cls(folder / "images" / str(platform))

    @property
    def layout(self) -> Path:
        """The OCI image layout; images share its blobs."""
        return self.folder / "layout"

    @property
    def staging(self) -> Path:
        """Unfinished blobs and folders, on the same disk as the finished ones."""
        return self.folder / ".staging"

    @property
    def packages(self) -> Path:
        """The file that remembers of which packages of the distribution the images are made."""
        return self.folder / "packages.json"

    def blob(self, digest: str) -> Path:
        """Where the content of that digest lies, or would."""
        algorithm, _, value = digest.partition(":")
        return self.layout / "blobs" / algorithm / value

    def manifest(self, built: Built) -> dict[str, Any]:
        """An image's OCI manifest."""
        manifest: dict[str, Any] = json.loads(self.blob(built.digest).read_text())
        return manifest

    def read(self) -> Index:
        """The index; an empty one if there is none, or one of another format."""
        try:
            told = json.loads((self.folder / "index.json").read_text())
            if told["format"] != _FORMAT:
                return Index()
            return Index(
                images={name: _built(entry) for name, entry in told["images"].items()},
                layers={key: _layer(entry) for key, entry in told["layers"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError):
            return Index()

    def write(self, index: Index) -> None:
        """Make `index` what :meth:`read` gives; the layout's own index follows it."""
        images = {name: asdict(index.images[name]) for name in sorted(index.images)}
        layers = {key: asdict(index.layers[key]) for key in sorted(index.layers)}
        self.write_layout(self.layout, index.images)
        write_json(self.folder / "index.json", {"format": _FORMAT, "images": images, "layers": layers})

    def write_layout(self, folder: Path, images: Mapping[str, Built]) -> None:
        """Make a folder the OCI image layout of some images; its blobs are not written here."""
        manifests = [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": built.digest,
                "size": self.blob(built.digest).stat().st_size,
                "annotations": {"org.opencontainers.image.ref.name": f"{name}:{built.version}"},
                "platform": {"os": "linux", "architecture": built.architecture},
            }
            for name, built in sorted(images.items())
        ]
        write_json(folder / "oci-layout", {"imageLayoutVersion": "1.0.0"})
        write_json(folder / "index.json", {"schemaVersion": 2, "manifests": manifests})

    @contextmanager
    def reserved(self, wait: Callable[[], None]) -> Iterator[None]:
        """Only one run at a time works on a store; what a killed one left is removed.

        Args:
            wait: called if another run works on it, before that one's end is waited for.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.staging, ignore_errors=True)

    def sweep(self, index: Index) -> None:
        """Forget the layers that no image has, and delete every blob that nothing leads to."""
        used = {key for built in index.images.values() for key in built.layers}
        kept = {key: layer for key, layer in index.layers.items() if key in used}
        if len(kept) != len(index.layers):
            self.write(Index(index.images, kept))
        digests = {layer.digest for layer in kept.values()}
        for built in index.images.values():
            digests |= {built.digest, self.manifest(built)["config"]["digest"]}
        for blob in (self.layout / "blobs" / "sha256").iterdir():
            if f"sha256:{blob.name}" not in digests:
                blob.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file in one step; after a crash it is the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _built(entry: dict[str, Any]) -> Built:
    return Built(**{**entry, "layers": tuple(entry["layers"]), "pushed": tuple(entry["pushed"])})


def _layer(entry: dict[str, Any]) -> Layer:
    return Layer(**{**entry, "parts": tuple(entry["parts"])})
