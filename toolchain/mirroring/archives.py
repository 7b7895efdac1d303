"""The tools of a mirror: an archive of each, the same byte for byte for the same tool."""

import gzip
import json
import os
import tarfile
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from toolchain.bom import Tool
from toolchain.cache import RECEIPT, Cache, InstalledTool, Receipt
from toolchain.images.layer import Member, add, tree
from toolchain.mirroring.folder import MirrorFolder
from toolchain.platforms import Platform
from toolchain.progress import Progress
from toolchain.sources.mirror import archive_name

_LEVEL = 1
"""Of gzip. On Go programs one core packs 52 MB/s to 47 % of their size; xz at its fastest 9 MB/s to 38 %, and it
takes twice as long to unpack."""
_COPIED_AT_ONCE = 1 << 20


def write_archives(
    mirror: MirrorFolder,
    tools: Sequence[tuple[Tool, InstalledTool]],
    cache: Cache,
    platform: Platform,
    progress: Progress,
) -> list[str]:
    """Write the archives of tools; return their names.

    Args:
        mirror: that they are for.
        tools: entries of the bill of materials, and what is installed of them.
        cache: holds the tools.
        platform: that they are for.
        progress: called with where it is.
    """
    progress.start("tools", f"{len(tools)} archives")
    progress.step("looking at what is there")
    archives = {
        archive_name(tool, platform): (cache.place(tool, platform), installed.receipt)
        for tool, installed in tools
    }
    missing = [name for name, (_, receipt) in archives.items() if not _is_current(mirror, name, receipt)]
    missing.sort(key=lambda name: _size(archives[name][0]), reverse=True)  # so the cores end together
    if missing:
        progress.step(f"packing {len(missing)}")
    stopped = threading.Event()

    def pack(name: str) -> None:
        if not stopped.is_set():
            _pack(*archives[name], mirror.staging / name, stopped)
            mirror.add({name: mirror.staging / name})
            progress.line(f"✓ {name}, {mirror.size([name]) / 1e6:.0f} MB")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for _ in pool.map(pack, missing):
                pass
        except BaseException:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return list(archives)


def _is_current(mirror: MirrorFolder, name: str, receipt: Receipt) -> bool:
    """Return whether an archive is whole and holds the tool that is installed."""
    if not mirror.has(name):
        return False
    try:
        with tarfile.open(mirror.path / name) as tar:
            first = tar.next()
            file = tar.extractfile(first) if first and first.name == RECEIPT else None
            held = Receipt(**json.loads(file.read())) if file else None
    except (tarfile.TarError, EOFError, zlib.error, ValueError, TypeError):
        return False
    return held is not None and held.identity == receipt.identity


def _pack(folder: Path, receipt: Receipt, archive: Path, stopped: threading.Event) -> None:
    """Pack a tool's folder, its receipt first.

    Raises:
        KeyboardInterrupt: it was stopped on the way.
    """
    anywhere = replace(receipt, installed_at="", seconds=0, mirror=None)
    members: Sequence[tuple[str, Member]] = [
        (RECEIPT, Member(anywhere.to_json().encode())),
        *sorted((path, member) for path, member in tree(folder, "") if path != RECEIPT),
    ]
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as zipped,
        tarfile.TarFile(
            fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT, copybufsize=_COPIED_AT_ONCE
        ) as tar,
    ):
        for path, member in members:
            if stopped.is_set():
                raise KeyboardInterrupt
            add(tar, path, member)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
