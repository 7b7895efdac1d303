"""``python -m toolchain.images``: builds images and brings them where pods find them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from toolchain.cache import Cache
from toolchain.cli import exit_on_error, terminable
from toolchain.images.catalogue import CATALOGUE, recipe_of
from toolchain.images.containerd import SOCKET, Containerd
from toolchain.images.errors import ImageError, ImageMissingError
from toolchain.images.image import locate
from toolchain.images.store import Built, Store
from toolchain.progress import Progress, progress_for

app = typer.Typer(help="Container images of the platform's programs, built from the installed tools.")

_Names = Annotated[list[str] | None, typer.Argument(help="Images; none: all.")]
_Refresh = Annotated[
    bool,
    typer.Option("--refresh", help="Take the newest packages of the distribution, e.g. with security fixes."),
]
_Socket = Annotated[Path, typer.Option("--socket", help="Of the node's containerd.")]
_Registry = Annotated[
    str | None,
    typer.Option(
        "--registry", help="Push to this registry instead, e.g. registry.example.com:5000/platform."
    ),
]


@app.callback(invoke_without_command=True)
def everything(context: typer.Context, registry: _Registry = None) -> None:
    """Build what has changed, and bring it to this machine's node, or to a registry."""
    if context.invoked_subcommand is not None:
        return
    with exit_on_error(), terminable(), progress_for() as progress:
        built = _build(progress, None, refresh=False)
        if registry:
            _push(progress, built, registry)
        elif Containerd().is_there:
            _load(progress, built, Containerd())
        else:
            progress.line(
                f"No node runs here ({SOCKET} is not there): nothing to load. `make cluster` makes one."
            )


@app.command()
def build(names: _Names = None, refresh: _Refresh = False) -> None:
    """Build images; what has not changed costs nothing."""
    with exit_on_error(), terminable(), progress_for() as progress:
        _build(progress, names, refresh=refresh)


@app.command()
def load(names: _Names = None, socket: _Socket = SOCKET) -> None:
    """Bring built images to this machine's node."""
    with exit_on_error(), terminable(), progress_for() as progress:
        _load(progress, _built(names), Containerd(socket))


@app.command()
def push(
    registry: Annotated[
        str,
        typer.Argument(
            help="A registry, with the first part of names in it, e.g. registry.example.com/platform."
        ),
    ],
    names: _Names = None,
) -> None:
    """Bring built images to a registry, where the nodes of other machines find them."""
    with exit_on_error(), terminable(), progress_for() as progress:
        _push(progress, _built(names), registry)


@app.command("list")
def list_images(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every image: version, size, digest, where it was pushed to."""
    with exit_on_error():
        built = Store.of(Cache.default()).read().images
    if as_json:
        print(json.dumps({name: asdict(image) for name, image in built.items()}, indent=1))
        return
    console = Console()
    for name, recipe in CATALOGUE.items():
        image = built.get(name)
        line = f"{name}: not built; {recipe.purpose}"
        if image:
            line = f"{name} {image.version}: {image.size / 1e6:.0f} MB, {image.digest}"
            line += f"; pushed to {', '.join(image.pushed)}" if image.pushed else ""
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def sbom(name: Annotated[str, typer.Argument(help="Of an image.")]) -> None:
    """Print an image's software bill of materials as CycloneDX JSON."""
    from toolchain.images.sbom import bill_of

    with exit_on_error():
        print(json.dumps(bill_of(name, store=Store.of(Cache.default())), indent=1))


@app.command()
def path(
    name: Annotated[str | None, typer.Argument(help="An image; none: the folder of all.")] = None,
) -> None:
    """Print the OCI image layout that the images lie in; for one image, with its tag as skopeo takes it after oci:."""
    with exit_on_error():
        store = Store.of(Cache.default())
        print(f"{store.layout}:{name}:{locate(name, store=store).version}" if name else store.layout)


def _build(progress: Progress, names: Sequence[str] | None, *, refresh: bool) -> dict[str, Built]:
    from toolchain.images.making import build_images

    built = build_images(progress, names, refresh=refresh)
    progress.line(f"{len(built)} images are built.")
    return built


def _built(names: Sequence[str] | None) -> dict[str, Built]:
    images = Store.of(Cache.default()).read().images
    for name in names or ():
        recipe_of(name)
        if name not in images:
            raise ImageMissingError(f"the image {name} was not built yet: run `make images`")
    if not images:
        raise ImageMissingError("no image was built yet: run `make images`")
    return {name: images[name] for name in names or images}


def _load(progress: Progress, built: dict[str, Built], node: Containerd) -> None:
    if not node.is_there:
        raise ImageError(
            f"no containerd listens at {node.socket}: name another with --socket, or let `make cluster` make a node"
        )
    from toolchain.images.making import load_images

    loaded = load_images(progress, Store.of(Cache.default()), built, node)
    progress.line(f"{len(loaded)} images loaded, {len(built) - len(loaded)} were on the node.")


def _push(progress: Progress, built: dict[str, Built], where: str) -> None:
    from toolchain.images.building import Building
    from toolchain.images.registry import push as push_images

    progress.start("registry", f"{len(built)} images")
    progress.step(f"pushing to {where}")
    pushed = push_images(Store.of(Cache.default()), built, where, tell=progress.detail)
    Building(progress).record_push(list(built), where)
    progress.line(f"{len(pushed)} images pushed to {where}, {len(built) - len(pushed)} were there.")
