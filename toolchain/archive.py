"""Unpacking of vendors' and mirrors' tar archives into a tool's folder."""

import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from toolchain.bom import Layout
from toolchain.errors import SourceUnavailableError


def unpack(archive: Path, layout: Layout, into: Path) -> None:
    """Unpack what `layout` picks of an archive; without picks, everything.

    Args:
        archive: a tar file, plain or compressed with gzip, bzip2 or xz.
        layout: how many leading path components to strip, and which members go where.
        into: folder that exists.

    Raises:
        SourceUnavailableError: not an archive, cut short, a member outside of the folder, or a pick that
            matches nothing (the vendor changed the archive's layout).
    """
    missing = set(layout.pick)
    try:
        with tarfile.open(archive) as tar:
            for member, target, pattern in _selected(tar, layout):
                missing.discard(pattern)
                _write(tar, member, into, target)
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the archive
        raise SourceUnavailableError(f"{archive.name} is no readable archive: {error}") from error
    if missing:
        raise SourceUnavailableError(
            f"{archive.name} holds nothing that matches {', '.join(sorted(missing))}: its layout is not "
            "the one that the bill of materials describes"
        )


def _selected(tar: tarfile.TarFile, layout: Layout) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath, str]]:
    for member in tar:
        parts = tuple(part for part in PurePosixPath(member.name).parts if part != ".")[layout.strip :]
        if not parts:
            continue
        path = PurePosixPath(*parts)
        if not layout.pick:
            yield member, path, ""
            continue
        for pattern, target in layout.pick.items():
            if member.isfile() and fnmatchcase(str(path), pattern):
                yield member, PurePosixPath(target), pattern


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path, target: PurePosixPath) -> None:
    path = into / target
    _refuse_outside(into, path, member)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        _refuse_outside(into, path.parent / member.linkname, member)
        path.symlink_to(member.linkname)
        return
    source = tar.extractfile(member)
    if source is None:
        raise SourceUnavailableError(f"{member.name} in the archive is neither a file, a folder nor a link")
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    path.chmod(0o755 if member.mode & 0o111 else 0o644)


def _refuse_outside(into: Path, path: Path, member: tarfile.TarInfo) -> None:
    if not path.resolve().is_relative_to(into.resolve()):
        raise SourceUnavailableError(f"{member.name} in the archive points outside of the tool's folder")
