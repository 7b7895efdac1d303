"""Makes a staged tool visible: receipt written, everything on the disk, then one rename."""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from toolchain.bom import Tool
from toolchain.cache import RECEIPT, InstalledTool, Receipt, root_of
from toolchain.errors import SourceUnavailableError
from toolchain.sources import Origin, Workshop


def complete(
    tool: Tool, source: str, origin: Origin, staging: Path, workshop: Workshop, *, seconds: float
) -> InstalledTool:
    """Move a tool from `staging` to its place in the cache, replacing a former one.

    Args:
        tool: what was brought.
        source: ``mirror``, ``vendor`` or ``registry``.
        origin: what the source told.
        staging: folder on the cache's disk that holds the tool.
        workshop: names cache and platform.
        seconds: how long it took.

    Raises:
        SourceUnavailableError: one of the tool's programs is not there.
    """
    receipt = Receipt(
        name=tool.name,
        version=origin.version or tool.version,
        platform=str(workshop.platform),
        source=source,
        location=origin.location,
        checksum=origin.checksum,
        verified=origin.verified,
        source_digest=tool.source_digest(source),
        installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        root=root_of(tool, source),
        note=origin.note,
    )
    for program in tool.executables:
        path = staging / receipt.root / "bin" / program
        if not path.is_file():
            raise SourceUnavailableError(f"{origin.location} holds no program {program}")
        path.chmod(0o755)
    (staging / RECEIPT).write_text(receipt.to_json())
    staging.chmod(0o755)
    _flush(staging)
    cache = workshop.cache
    place = cache.place(tool, workshop.platform)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(Path(tempfile.mkdtemp(dir=cache.staging)) / "replaced")
    staging.rename(place)
    _flush_folder(place.parent)
    return cache.installed(tool, place, receipt)


def _flush(folder: Path) -> None:
    for parent, _folders, files in os.walk(folder):
        for name in files:
            path = Path(parent) / name
            if not path.is_symlink():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        _flush_folder(Path(parent))


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
