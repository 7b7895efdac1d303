"""The software bill of materials of an image, as CycloneDX 1.6 JSON."""

import uuid
from typing import Any

from toolchain.bom import Bom
from toolchain.cache import Cache
from toolchain.images.catalogue import recipe_of
from toolchain.images.image import locate
from toolchain.images.store import Store
from toolchain.platforms import Platform
from toolchain.sbom import software_bill

_NAMESPACE = uuid.UUID("0d7b5f8a-5c0e-5d6e-8a51-3f2f0c6a9e12")


def image_bill(name: str, bom: Bom, cache: Cache, platform: Platform) -> dict[str, Any]:
    """What is in an image: its tools and what these are made of, the distribution's packages, Python's libraries.

    The same for the same image and the same installed tools.

    Raises:
        UnknownImageError: there is no such image.
        ImageMissingError: it was not built.
    """
    store = Store.of(cache)
    image = locate(name, store=store, bom=bom)
    index = store.read()
    tools = Bom({tool: bom.tool(tool) for tool in recipe_of(name).tools})
    components: list[dict[str, Any]] = software_bill(tools, cache, platform)["components"]
    for key in index.images[name].layers:
        for part in index.layers[key].parts:
            components.append({**part, "bom-ref": part["purl"]})
    reference = f"pkg:oci/{name}@{image.digest}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, repr((image.digest, components)))}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": reference,
                "name": name,
                "version": image.version,
                "purl": reference,
                "hashes": [{"alg": "SHA-256", "content": image.digest.removeprefix("sha256:")}],
            }
        },
        "components": components,
        "dependencies": [{"ref": reference, "dependsOn": [entry["bom-ref"] for entry in components]}],
    }
