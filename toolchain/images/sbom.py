"""The software bill of materials of an image: its packages, distributions and tools, as CycloneDX 1.6 JSON."""

import re
import tarfile
import uuid
from collections.abc import Mapping
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from toolchain.bom import Bom, load_bom
from toolchain.cache import Cache
from toolchain.images.catalogue import recipe_of
from toolchain.images.errors import ImageMissingError
from toolchain.images.store import Index, Layer, Store, write_json
from toolchain.platforms import this_platform
from toolchain.sbom import tool_component

_NAMESPACE = uuid.UUID("0d0a7c1e-5b8f-5a53-9c53-5e1d2f4b7a90")
_COPYRIGHT = re.compile(r"usr/share/doc/(?P<package>[^/]+)/copyright")
_METADATA = re.compile(r".*/site-packages/[^/]+\.dist-info/METADATA")
_LICENCE = re.compile(r"^License:[ \t]*(\S[^\n]*?)[ \t]*$", re.MULTILINE)
_CLASSIFIER = "License :: "
_LONGEST = 100
"""Characters of a licence's name; some put the whole text where its name belongs."""


def bill_of(name: str, *, store: Store, bom: Bom | None = None, cache: Cache | None = None) -> dict[str, Any]:
    """The bill of a built image; the same for the same image made from the same tools.

    Licences are those that Debian's copyright files and Python's metadata in the image itself name.

    Args:
        name: of an image.
        store: holds it.
        bom: another bill of materials than the project's.
        cache: another cache than the user's.

    Raises:
        UnknownImageError: there is no such image.
        ImageMissingError: it was not built.
    """
    bom, cache, index = bom or load_bom(), cache or Cache.default(), store.read()
    recipe = recipe_of(name)
    built = index.images.get(name)
    if built is None:
        raise ImageMissingError(
            f"the image {name} was not built yet ({store.folder} has none): run `make images`"
        )
    subject = f"image:{name}"
    tools = [tool_component(bom.tool(tool), cache, this_platform()) for tool in recipe.tools]
    parts = [part for key in built.layers for part in _parts(store, index, key)]
    components = [*tools, *parts]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, built.digest + repr(components))}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": subject,
                "name": name,
                "version": built.version,
                "description": recipe.purpose,
                "purl": f"pkg:oci/{name}@{built.digest}?arch={built.architecture}",
                "hashes": [{"alg": "SHA-256", "content": built.digest.removeprefix("sha256:")}],
            }
        },
        "components": components,
        "dependencies": [{"ref": subject, "dependsOn": [entry["bom-ref"] for entry in components]}],
    }


def write_bill(name: str, *, store: Store, bom: Bom | None = None, cache: Cache | None = None) -> Path:
    """Write an image's bill beside the images, unless that of this very image is there; gives its file."""
    path = (
        store.folder
        / "sbom"
        / f"{name}-{store.read().images[name].digest.removeprefix('sha256:')[:16]}.cdx.json"
    )
    if not path.is_file():
        write_json(path, bill_of(name, store=store, bom=bom, cache=cache))
        for former in path.parent.glob(f"{name}-{'?' * 16}.cdx.json"):
            if former != path:
                former.unlink()
    return path


def _parts(store: Store, index: Index, key: str) -> list[dict[str, Any]]:
    layer = index.layers[key]
    if not layer.parts:
        return []
    licences = _licences(store, layer)
    return [
        {
            **part,
            "bom-ref": part["purl"],
            **({"licenses": licences[part["name"]]} if licences.get(part["name"]) else {}),
            "properties": [{"name": "marketlake:layer", "value": layer.digest}],
        }
        for part in layer.parts
    ]


def _licences(store: Store, layer: Layer) -> Mapping[str, list[dict[str, Any]]]:
    """Name of a package or distribution → its licences, read from the layer itself."""
    found: dict[str, list[dict[str, Any]]] = {}
    with tarfile.open(store.blob(layer.digest)) as tar:
        for member in tar:
            copyright_file = _COPYRIGHT.fullmatch(member.name)
            if not copyright_file and not _METADATA.fullmatch(member.name):
                continue
            file = tar.extractfile(member)
            if file is None:  # a link to another package's, which tells of that one
                continue
            text = file.read().decode("utf-8", "replace")
            if copyright_file:
                found[copyright_file["package"]] = _named(set(_LICENCE.findall(text)))
            else:
                name, licences = _declared(text)
                found[name] = licences
    return found


def _declared(metadata: str) -> tuple[str, list[dict[str, Any]]]:
    """Name and licences of a Python distribution: PEP 639's expression, else what was customary before it."""
    told = HeaderParser().parsestr(metadata)
    name = re.sub(r"[-_.]+", "-", told["Name"]).lower()
    if expression := told["License-Expression"]:
        return name, [{"expression": expression}]
    classified = {
        text.rpartition(" :: ")[2] for text in told.get_all("Classifier", []) if text.startswith(_CLASSIFIER)
    }
    classified -= {"OSI Approved"}
    plain = (told["License"] or "").strip()
    if not classified and plain and "\n" not in plain:
        classified = {plain}
    return name, _named(classified)


def _named(names: set[str]) -> list[dict[str, Any]]:
    return [{"license": {"name": name}} for name in sorted(names) if len(name) <= _LONGEST]
