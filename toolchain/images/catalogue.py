"""Which images there are, and what each is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from toolchain.images.errors import UnknownImageError

NOBODY = 65532
"""User and group of every image: the one that distroless images made customary."""
HOME = "/tmp"  # noqa: S108 - a container's /tmp is its own
RUNTIME = "marketlake"
"""The image with the runtime: every service that is a Python distribution runs in it."""
RUNTIME_FOLDER = f"/opt/{RUNTIME}"


class Base(StrEnum):
    """What lies below an image's program."""

    STATIC = "static"
    """Users, certificates and /tmp: for programs that are one file."""
    SHELL = "shell"
    """STATIC and a shell with its commands."""
    GLIBC = "glibc"
    """STATIC and the distribution's C and C++ libraries, time zones, a shell."""
    PYTHON = "python"
    """GLIBC and the distribution's Python."""


@dataclass(frozen=True)
class Recipe:
    """One image."""

    name: str
    base: Base
    purpose: str
    tools: tuple[str, ...] = ()
    """By their names in the bill of materials; the first gives the image its version."""
    roots: tuple[str, ...] = ()
    """Tools whose folders somebody refers to."""
    group: str | None = None
    """The group of tools that it belongs to; None: what the platform's services run in."""
    pages_need_release: bool = False
    """Whether only the vendor's release, or a mirror made from it, has the program's web pages."""


CATALOGUE: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("minio", Base.STATIC, "the object store", ("minio",)),
        Recipe("victoria-metrics", Base.STATIC, "the store of metrics", ("victoria-metrics",)),
        Recipe("victoria-logs", Base.STATIC, "the store of logs", ("victoria-logs",)),
        Recipe("jaeger", Base.STATIC, "the store of traces", ("jaeger",), pages_need_release=True),
        Recipe("otel-collector", Base.STATIC, "receives and forwards telemetry", ("otel-collector",)),
        Recipe("postgresql", Base.GLIBC, "the relational database", ("postgresql",)),
        Recipe("kafka", Base.GLIBC, "the event bus", ("kafka", "java"), roots=("kafka", "java")),
        Recipe(RUNTIME, Base.PYTHON, "collects and refines market data"),
        Recipe("pause", Base.STATIC, "holds the namespaces of a pod", ("pause",), group="cluster"),
        Recipe("busybox", Base.SHELL, "makes and removes the folders of volumes", group="cluster"),
        Recipe("coredns", Base.STATIC, "resolves names in the cluster", ("coredns",), group="cluster"),
        Recipe(
            "metrics-server", Base.STATIC, "measures pods and nodes", ("metrics-server",), group="cluster"
        ),
        Recipe(
            "local-path-provisioner",
            Base.STATIC,
            "gives pods folders of the node as volumes",
            ("local-path-provisioner",),
            group="cluster",
        ),
    )
}


def recipe_of(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UnknownImageError: there is none.
    """
    try:
        return CATALOGUE[name]
    except KeyError:
        raise UnknownImageError(f"no image is called {name!r}; there are {', '.join(CATALOGUE)}") from None
