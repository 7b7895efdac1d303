"""Writes a mirror: tools, wheels and images, each whole or not at all, and only what is not there."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolchain.bom import load_bom
from toolchain.cache import Cache
from toolchain.errors import DiskSpaceError, ToolchainError
from toolchain.installation import Installation
from toolchain.mirroring.archives import write_archives
from toolchain.mirroring.folder import MirrorFolder
from toolchain.mirroring.images import images_of, write_images
from toolchain.mirroring.wheels import PYTHON, write_wheels
from toolchain.platforms import this_platform
from toolchain.progress import Progress


@dataclass(frozen=True)
class MirrorReport:
    """What a mirror holds for this platform and version of the project."""

    folder: str
    platform: str
    python: str
    """That the wheels are for, e.g. ``cp311``."""
    tools: Mapping[str, str]
    """Name → version."""
    wheels: int
    images: Mapping[str, str]
    """Name → version."""
    written: int
    """Files that were not there."""
    bytes: int
    """Of all files in the mirror, of other platforms and versions as well."""


def write_mirror(folder: Path, *, groups: Sequence[str] = (), progress: Progress) -> MirrorReport:
    """Write a mirror for this platform and Python, or bring one up to date.

    What is in the folder and has the listed digest is not written again, so a run that was killed is completed
    by the next one.

    Args:
        folder: is made; another one than an empty folder must be a mirror.
        groups: of further tools, and of the images that belong to them.
        progress: called with where it is.

    Raises:
        UnknownToolError: there is no such group.
        ToolchainError: the folder is no mirror or cannot be written, or something for it cannot be had.
        DiskSpaceError: its disk is full.
    """
    bom, cache, platform = load_bom(), Cache.default(), this_platform()
    tools = bom.of_groups(groups)
    with _errors_of(folder), MirrorFolder.opened(folder, lambda: _wait(folder, progress)) as mirror:
        installed = Installation().install(groups=groups, progress=progress)
        write_archives(mirror, list(zip(tools, installed, strict=True)), cache, platform, progress)
        wheels = write_wheels(mirror, cache, platform, progress)
        names = images_of(groups)
        images = write_images(mirror, names, cache, platform, progress) if names else {}
        return MirrorReport(
            folder=str(folder),
            platform=str(platform),
            python=PYTHON,
            tools={tool.name: tool.version for tool in installed},
            wheels=len(wheels),
            images={name: image.version for name, image in images.items()},
            written=len(mirror.written),
            bytes=mirror.size(mirror.names),
        )


def _wait(folder: Path, progress: Progress) -> None:
    progress.line(f"waiting for another run that writes {folder} to end")


@contextmanager
def _errors_of(folder: Path) -> Iterator[None]:
    """Say of an error of the disk which folder it is about and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskSpaceError(
                f"the disk of {folder} is full. What is listed there is whole: free some room, or go on in a copy of "
                "it on another disk, and run the same again."
            ) from error
        raise ToolchainError(f"the mirror {folder} cannot be written: {error}") from error
