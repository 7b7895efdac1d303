"""An image's OCI configuration and manifest, and its entry in the store's index."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from toolchain.bom import Bom
from toolchain.cache import InstalledTool
from toolchain.images.catalogue import HOME, NOBODY, RUNTIME, RUNTIME_FOLDER, Base, Recipe
from toolchain.images.keys import code_of
from toolchain.images.layer import EPOCH, add_blob
from toolchain.images.runtime import SCRIPTS
from toolchain.images.store import Built, Layer, Store
from toolchain.platforms import Platform

_CODE = ("manifest.py", "catalogue.py")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CREATED = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))


def told_by() -> str:
    """A digest of the modules that decide what an image says of itself."""
    return code_of(*_CODE)


def add_image(
    store: Store,
    recipe: Recipe,
    tools: Sequence[InstalledTool],
    layers: Mapping[str, Layer],
    *,
    key: str,
    version: str,
    bom: Bom,
    platform: Platform,
) -> Built:
    """Put an image's configuration and manifest into the store; its index is left as it is.

    Args:
        store: holds the layers.
        recipe: of the image.
        tools: that are in it.
        layers: by their keys, bottom first.
        key: of everything that the image is made from.
        version: of what it is there for.
        bom: knows licences, home pages and the versions that were asked for.
        platform: that it runs on.
    """
    executables = _executables(recipe, tools)
    config, config_size = _add(store, _configuration(recipe, tools, layers, executables, platform))
    manifest, _ = _add(
        store,
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": config, "size": config_size},
            "layers": [
                {"mediaType": _LAYER, "digest": each.digest, "size": each.size} for each in layers.values()
            ],
            "annotations": _annotations(recipe, tools, version, bom),
        },
    )
    from_registry = bool(tools) and tools[0].receipt.source == "registry"
    return Built(
        key=key,
        version=version,
        digest=manifest,
        size=sum(layer.size for layer in layers.values()),
        executables=executables,
        roots={tool: f"/opt/{tool}" for tool in recipe.roots},
        has_pages=not (recipe.pages_need_release and from_registry),
        architecture=platform.architecture,
        pinned={tool: bom.tool(tool).version for tool in recipe.tools},
        layers=tuple(layers),
    )


def _configuration(
    recipe: Recipe,
    tools: Sequence[InstalledTool],
    layers: Mapping[str, Layer],
    executables: dict[str, str],
    platform: Platform,
) -> dict[str, Any]:
    folders = [f"/opt/{tool.name}/bin" for tool in tools]
    folders += [f"{RUNTIME_FOLDER}/bin"] if recipe.name == RUNTIME else []
    return {
        "created": _CREATED,
        "architecture": platform.architecture,
        "os": "linux",
        "config": {
            "User": f"{NOBODY}:{NOBODY}",
            "Env": _environment(recipe, folders),
            "WorkingDir": "/",
            **_command(recipe, executables),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers.values()]},
        "history": [{"created": _CREATED, "created_by": layer.title} for layer in layers.values()],
    }


def _annotations(recipe: Recipe, tools: Sequence[InstalledTool], version: str, bom: Bom) -> dict[str, str]:
    licences = [bom.tool(tool.name).licence for tool in tools] or ["Apache-2.0"]
    annotations = {
        "org.opencontainers.image.title": recipe.name,
        "org.opencontainers.image.description": recipe.purpose,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": " AND ".join(f"({licence})" for licence in licences),
        "org.opencontainers.image.created": _CREATED,
    }
    if tools:
        annotations["org.opencontainers.image.url"] = bom.tool(tools[0].name).homepage
    return annotations


def _add(store: Store, content: dict[str, Any]) -> tuple[str, int]:
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return add_blob(store, lambda file: file.write(text))


def _executables(recipe: Recipe, tools: Sequence[InstalledTool]) -> dict[str, str]:
    if recipe.name == RUNTIME:
        return {program: f"{RUNTIME_FOLDER}/bin/{program}" for program in SCRIPTS}
    if recipe.base is Base.SHELL:
        return {"busybox": "/bin/busybox", "sh": "/bin/sh"}
    return {
        program: f"/opt/{tool.name}/bin/{program}" for tool in tools for program in sorted(tool.executables)
    }


def _command(recipe: Recipe, executables: dict[str, str]) -> dict[str, list[str]]:
    """What a container runs without arguments: the program of that name, or a shell."""
    if recipe.base is Base.SHELL:
        return {"Cmd": ["/bin/sh"]}
    return {"Entrypoint": [executables[recipe.name]]} if recipe.name in executables else {}


def _environment(recipe: Recipe, folders: list[str]) -> list[str]:
    path = ":".join([*folders, "/usr/local/bin", "/usr/bin", "/bin"])
    told = {"HOME": HOME, "PATH": path}
    if recipe.base in {Base.GLIBC, Base.PYTHON}:
        told["LANG"] = "C.UTF-8"
    if recipe.base is Base.PYTHON:
        # Debian's OpenSSL looks for its certificates where a package that is not installed would put them.
        told |= {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt", "PYTHONDONTWRITEBYTECODE": "1"}
    return [f"{name}={value}" for name, value in told.items()]
