"""Where the image of a program is, and what lies where in it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.bom import load_bom
from toolchain.cache import Cache
from toolchain.errors import ToolchainError
from toolchain.platforms import this_platform

RUNTIME = "marketlake"
"""The image of the runtime, which every Python distribution is installed with."""
LOCAL = "marketlake.local"
"""What stands for a registry in the names of images that lie on a node itself; nobody answers there."""


class ImageMissingError(ToolchainError):
    """An image was not built yet, or cannot be told from others of its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorImage:
    """Somebody else's image of a program."""

    reference: str
    """With its digest: ``name@sha256:…``."""
    executables: Mapping[str, str] = field(default_factory=dict)
    """Absolute paths in the image, by name; one that is not listed is found by the image's PATH."""
    roots: Mapping[str, str] = field(default_factory=dict)
    """Folders of tools in the image, by tool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The image of a program."""

    name: str
    version: str
    reference: str
    """What a pod names: with the digest of its manifest."""
    digest: str
    executables: Mapping[str, str]
    """Absolute paths in the image, by name."""
    roots: Mapping[str, str]
    """Folders of tools in the image, by tool."""
    has_pages: bool = True
    """Whether the program serves its web page for people."""
    architecture: str = "amd64"


def index_file(cache: Cache | None = None) -> Path:
    """Where it is written which images were built."""
    return (cache or Cache.default()).folder / "images" / "index.json"


def locate(
    name: str, *, registry: str | None = None, vendor: Mapping[str, VendorImage] | None = None
) -> Image:
    """The image of a program.

    Args:
        name: of the program, as the bill of materials calls it; ``marketlake`` is the runtime.
        registry: ``host[:port]/prefix`` that the images were pushed to; None: they lie on the node.
        vendor: images to take instead, by program.

    Raises:
        ImageMissingError: there is none; the message says how to get it.
    """
    try:
        known = json.loads(index_file().read_text())["images"]
    except FileNotFoundError:
        known = {}
    entry = known.get(name)
    chosen = (vendor or {}).get(name)
    if chosen is not None:
        return _of_vendor(name, chosen, entry)
    if entry is None:
        raise ImageMissingError(f"the image of {name} was not built yet: run `make images`")
    return Image(
        name=name,
        version=entry["version"],
        reference=f"{registry or LOCAL}/{name}@{entry['digest']}",
        digest=entry["digest"],
        executables=entry["executables"],
        roots=entry["roots"],
        has_pages=entry["has_pages"],
        architecture=entry["architecture"],
    )


def _of_vendor(name: str, chosen: VendorImage, ours: Mapping[str, object] | None) -> Image:
    pinned = re.fullmatch(r"(?P<name>[^\s@]+)@(?P<digest>sha256:[0-9a-f]{64})", chosen.reference)
    if pinned is None:
        raise ImageMissingError(
            f"the image {chosen.reference!r} of {name} pins no digest, so it may come to mean another: write "
            "name@sha256:… with 64 hexadecimal digits"
        )
    digest = pinned["digest"]
    _, _, tag = pinned["name"].rpartition("/")[2].partition(":")
    architecture = str(ours["architecture"]) if ours else this_platform().architecture
    return Image(
        name=name,
        version=tag or digest.removeprefix("sha256:")[:12],
        reference=chosen.reference,
        digest=digest,
        executables={program: program for program in _programs(name)} | dict(chosen.executables),
        roots=chosen.roots,
        architecture=architecture,
    )


def _programs(name: str) -> tuple[str, ...]:
    """Programs that a vendor's image is expected to have on its PATH."""
    if name == RUNTIME:
        return ("marketlake", "prefect")
    return (*load_bom().tool(name).executables, "java")
