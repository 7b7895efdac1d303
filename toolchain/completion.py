"""Makes a staged tool visible: receipt written, everything on the disk, then one rename."""

import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolchain.bom import Tool
from toolchain.cache import RECEIPT, InstalledTool, Receipt, root_of
from toolchain.errors import SourceUnavailableError
from toolchain.sources import Origin, Workshop

_FLUSHED_TOGETHER = 16


def complete(
    tool: Tool, source: str, origin: Origin, staging: Path, workshop: Workshop, *, began: float
) -> InstalledTool:
    """Move a tool from `staging` to its place in the cache, replacing a former one.

    Args:
        tool: what was brought.
        source: ``mirror``, ``vendor`` or ``registry``.
        origin: what the source reported.
        staging: folder on the cache's disk that holds the tool.
        workshop: names cache and platform.
        began: when its turn began, by the monotonic clock.

    Raises:
        SourceUnavailableError: one of the tool's programs is not there.
    """
    root = origin.copied.root if origin.copied else root_of(tool, source)
    for program in tool.executables:
        path = staging / root / "bin" / program
        if not path.is_file():
            raise SourceUnavailableError(f"{origin.location} holds no program {program}")
        path.chmod(0o755)
    staging.chmod(0o755)
    _flush_tree(staging)
    brought: Mapping[str, Any] = {
        "installed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 1),
    }
    if origin.copied:
        receipt = replace(origin.copied, mirror=origin.location, **brought)
    else:
        receipt = Receipt(
            name=tool.name,
            version=origin.version or tool.version,
            platform=str(workshop.platform),
            source=source,
            location=origin.location,
            checksum=origin.checksum,
            verified=origin.verified,
            source_digest=tool.source_digest(source),
            root=root,
            note=origin.note,
            **brought,
        )
    (staging / RECEIPT).write_text(receipt.to_json())
    _flush(staging / RECEIPT)
    _flush(staging)
    cache = workshop.cache
    place = cache.place(tool, workshop.platform)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.staging, ignore_cleanup_errors=True) as aside:
        if place.exists():
            place.rename(Path(aside) / "replaced")
        staging.rename(place)
    _flush(place.parent)
    return cache.installed(tool, place, receipt)


def _flush_tree(folder: Path) -> None:
    """Bring thousands of files to the disk; together, for then they share the journal's commits."""
    found = [Path(parent) / name for parent, folders, files in os.walk(folder) for name in [*folders, *files]]
    with ThreadPoolExecutor(_FLUSHED_TOGETHER) as pool:
        for _ in pool.map(_flush, (path for path in found if not path.is_symlink())):
            pass


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
