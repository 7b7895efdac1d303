"""Layers of images: tar files that are the same, byte for byte, for the same content."""

import hashlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from toolchain.images.errors import ImageError
from toolchain.images.store import Layer, Store

EPOCH = 315532800
"""Time of every member: 1980-01-01, the earliest that zip files, made of such files, can tell."""
Writer = Callable[[IO[bytes]], object]
_PROGRAM, _FILE, _FOLDER = 0o755, 0o644, 0o755


@dataclass(frozen=True)
class Member:
    """A file, folder or symbolic link of a layer."""

    content: bytes | Path | None = None
    """Of a file."""
    link: str | None = None
    """Target of a symbolic link."""
    mode: int = _FILE


def folder(mode: int = _FOLDER) -> Member:
    """A folder."""
    return Member(mode=mode)


def program(content: bytes | Path) -> Member:
    """A file that may be run."""
    return Member(content, mode=_PROGRAM)


def link(target: str) -> Member:
    """A symbolic link."""
    return Member(link=target)


def tree(source: Path, target: str) -> Iterator[tuple[str, Member]]:
    """A folder of this machine, as members below `target`.

    Of the permissions only who may run a file is kept: the rest depends on who put it there.

    Raises:
        ImageError: something in it is neither file, folder nor symbolic link.
    """
    for parent, folders, files in os.walk(source):
        for name in sorted([*folders, *files]):
            path = Path(parent) / name
            inside = str(PurePosixPath(target) / path.relative_to(source))
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                yield inside, link(str(path.readlink()))
            elif stat.S_ISDIR(mode):
                yield inside, folder()
            elif stat.S_ISREG(mode):
                yield inside, program(path) if mode & 0o111 else Member(path)
            else:
                raise ImageError(f"{path} is neither file, folder nor link: no image can hold it")


def write_layer(
    store: Store,
    members: Mapping[str, Member],
    title: str,
    parts: Iterable[Mapping[str, Any]] = (),
) -> Layer:
    """Write a layer into the store.

    Args:
        store: where to.
        members: path in the image, without leading slash → what is there; folders on the way are added.
        title: what the layer holds.
        parts: CycloneDX components of what it holds.
    """
    everything = dict(members)
    for path in members:
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                everything.setdefault(str(parent), folder())

    def write(file: IO[bytes]) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(everything):
                add(tar, path, everything[path])

    digest, size = add_blob(store, write)
    return Layer(digest, size, title, tuple(parts))


def add_blob(store: Store, write: Writer) -> tuple[str, int]:
    """Put content into the store under its digest, whole or not at all; gives digest and size."""
    store.staging.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=store.staging, prefix="blob-", delete=False) as file:
        staged = Path(file.name)
        try:
            hashing = _Hashing(file)
            write(cast(IO[bytes], hashing))
            file.flush()
            os.fsync(file.fileno())
            digest = f"sha256:{hashing.hash.hexdigest()}"
            target = store.blob(digest)
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.chmod(0o644)
            staged.replace(target)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
    return digest, target.stat().st_size


class _Hashing(io.RawIOBase):
    """Hashes what is written to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._position = 0
        self.hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        self.hash.update(data)
        self._position += len(data)
        return self._file.write(data)


def add(tar: tarfile.TarFile, path: str, member: Member) -> None:
    """Append a member to a tar file."""
    info = tarfile.TarInfo(path)
    info.mtime = EPOCH
    info.mode = member.mode
    if member.link is not None:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, member.link, 0o777
        tar.addfile(info)
    elif member.content is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif isinstance(member.content, bytes):
        info.size = len(member.content)
        tar.addfile(info, io.BytesIO(member.content))
    else:
        with member.content.open("rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            tar.addfile(info, file)
