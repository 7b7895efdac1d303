"""The steps of ``make images``, and of an `up` that needs images: build and load."""

from collections.abc import Sequence

from toolchain.images.building import Building
from toolchain.images.containerd import Containerd
from toolchain.images.sbom import write_bill
from toolchain.images.store import Built, Store
from toolchain.progress import Progress


def build_images(
    progress: Progress, names: Sequence[str] | None, *, refresh: bool = False
) -> dict[str, Built]:
    """Build what has changed, with a bill of materials for each; None: all images whose tools are installed.

    Args:
        progress: called with where it is.
        names: of images.
        refresh: take the distribution's newest packages instead of the remembered ones.

    Raises:
        UnknownImageError: a name that has no recipe.
        ToolMissingError: a tool of one is not installed.
        ImageError: one cannot be built.
    """
    building = Building(progress, refresh=refresh)
    built = building.build(names)
    for name in built:
        write_bill(name, store=building.store)
    return built


def load_images(progress: Progress, store: Store, built: dict[str, Built], node: Containerd) -> list[str]:
    """Bring images to a node; gives the names of those that it did not have.

    Raises:
        ImageError: containerd does not answer or refuses one.
    """
    progress.start("node", f"{len(built)} images")
    return node.load(store, built, lambda name: progress.step(f"loading {name}"))
