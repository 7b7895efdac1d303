"""An image as deployments see it, and where it is found."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from toolchain.bom import Bom, load_bom
from toolchain.cache import Cache
from toolchain.images.catalogue import CATALOGUE, RUNTIME, recipe_of
from toolchain.images.errors import ImageMissingError, ImageReferenceError
from toolchain.images.store import Built, Store
from toolchain.platforms import this_platform

NOWHERE = "marketlake.local"
"""The registry's part in the names of images that lie on a node: no such host exists, so none is asked."""
_PINNED = re.compile(r"(?P<name>[^\s@]+)@(?P<digest>sha256:[0-9a-f]{64})")
_TAGGED = re.compile(r".*:(?P<tag>[^:/]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that pods can be made from."""

    name: str
    version: str
    reference: str
    """Name with digest."""
    digest: str
    executables: Mapping[str, str]
    """Program → absolute path in the image, or a bare name that the image's PATH leads to."""
    roots: Mapping[str, str]
    """Tool → its folder in the image."""
    has_pages: bool = True
    """Whether the program's web pages are in it."""
    architecture: str = "amd64"
    """As Go names processors, e.g. ``amd64``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorImage:
    """A vendor's image, used instead of ours."""

    reference: str
    """``NAME@sha256:…`` or ``NAME:TAG@sha256:…``."""
    executables: Mapping[str, str] = field(default_factory=dict)
    """Program → absolute path in the image; one that is left out is found by the image's PATH."""
    roots: Mapping[str, str] = field(default_factory=dict)
    """Tool → its folder in the image."""


def locate(
    name: str,
    *,
    registry: str | None = None,
    vendor: Mapping[str, VendorImage] | None = None,
    store: Store | None = None,
    bom: Bom | None = None,
) -> Image:
    """The image that a program runs in.

    Args:
        name: of a program, or ``marketlake`` for everything in Python.
        registry: ``HOST[:PORT][/PREFIX]`` that our images were pushed to; None: they lie on the nodes.
        vendor: images to use instead of ours, by program.
        store: another place of built images than the user's cache.
        bom: another bill of materials than the project's.

    Raises:
        UnknownImageError: there is no such image.
        ImageMissingError: it was not built, not from the pinned versions, or not pushed to that registry.
        ImageReferenceError: the vendor's image is not pinned by a digest.
    """
    bom = bom or load_bom()
    if vendor and name in vendor:
        return _vendors(name, vendor[name], bom)
    recipe = recipe_of(name)
    store = store or Store.of(Cache.default())
    built = store.read().images.get(name)
    if built is None or not store.blob(built.digest).is_file():
        raise ImageMissingError(
            f"the image {name} was not built yet ({store.folder} has none): run `make images`"
        )
    pinned = {tool: bom.tool(tool).version for tool in recipe.tools}
    if built.pinned != pinned:
        raise ImageMissingError(
            f"the image {name} was built when the bill of materials asked for {_versions(built.pinned)}; "
            f"now it asks for {_versions(pinned)}: run `make tools images`"
        )
    if registry and registry not in built.pushed:
        raise ImageMissingError(
            f"the image {name} {built.version} was not pushed to {registry} from here: "
            f"run `make images REGISTRY={registry}`"
        )
    return _ours(name, built, registry or NOWHERE)


def _ours(name: str, built: Built, registry: str) -> Image:
    return Image(
        name=name,
        version=built.version,
        reference=f"{registry}/{name}@{built.digest}",
        digest=built.digest,
        executables=built.executables,
        roots=built.roots,
        has_pages=built.has_pages,
        architecture=built.architecture,
    )


def _vendors(name: str, vendor: VendorImage, bom: Bom) -> Image:
    pinned = _PINNED.fullmatch(vendor.reference)
    if pinned is None:
        raise ImageReferenceError(
            f"the image for {name}, {vendor.reference!r}, is not pinned: a tag may come to mean another image. "
            "Write NAME@sha256:…, with the digest that the registry's page or `crane digest NAME:TAG` tells."
        )
    programs = [RUNTIME, "prefect"] if name == RUNTIME else []
    for tool in CATALOGUE[name].tools if name in CATALOGUE else ():
        programs += bom.tool(tool).executables
    tagged = _TAGGED.fullmatch(pinned["name"])
    return Image(
        name=name,
        version=tagged["tag"] if tagged else pinned["digest"][:19],
        reference=vendor.reference,
        digest=pinned["digest"],
        executables={**{program: program for program in programs}, **vendor.executables},
        roots=dict(vendor.roots),
        has_pages=True,
        architecture=this_platform().architecture,
    )


def _versions(pinned: Mapping[str, str]) -> str:
    return ", ".join(f"{tool} {version}" for tool, version in pinned.items()) or "no tool"
