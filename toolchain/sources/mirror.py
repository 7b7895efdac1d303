"""Tools from a mirror: a folder or URL with NAME-vVERSION-OS-ARCH.tar.xz files beside their SHA256SUMS."""

from pathlib import Path

from toolchain.archive import unpack
from toolchain.bom import Tool
from toolchain.checksums import Digest, file_digest, find_digest
from toolchain.errors import ChecksumMismatchError, SourceUnavailableError
from toolchain.sources import Origin, Workshop

MIRROR_VARIABLE = "MARKETLAKE_TOOL_MIRROR"
SUMS = "SHA256SUMS"


def archive_name(tool: Tool, platform: object) -> str:
    """The file name of a tool in a mirror."""
    return f"{tool.name}-v{tool.version}-{platform}.tar.xz"


def from_mirror(tool: Tool, staging: Path, workshop: Workshop) -> Origin:
    """Unpack a tool from the mirror.

    Raises:
        SourceUnavailableError: no mirror is set, it cannot be read, or it has no such file.
        ChecksumMismatchError: the file is not the one that SHA256SUMS lists.
    """
    if not workshop.mirror:
        raise SourceUnavailableError(f"{MIRROR_VARIABLE} is not set")
    name = archive_name(tool, workshop.platform)
    remote = "://" in workshop.mirror
    location = f"{workshop.mirror.rstrip('/')}/{name}"
    sums = _remote_sums(workshop) if remote else _local_sums(Path(workshop.mirror))
    expected = find_digest(sums, name)
    if expected is None:
        raise SourceUnavailableError(f"{workshop.mirror} lists no {name} in its {SUMS}")
    workshop.step(f"fetching {name} from the mirror")
    if remote:
        archive = workshop.fetcher.file(location, workshop.cache.downloads, expected, workshop.detail)
    else:
        archive = _local_archive(Path(location), expected)
    unpack(archive, tool.mirror, staging)
    return Origin(location, str(expected), f"against the mirror's {SUMS}")


def _remote_sums(workshop: Workshop) -> str:
    return workshop.fetcher.text(f"{str(workshop.mirror).rstrip('/')}/{SUMS}")


def _local_sums(folder: Path) -> str:
    try:
        return (folder / SUMS).read_text()
    except OSError as error:
        raise SourceUnavailableError(f"cannot read {folder / SUMS}: {error.strerror}") from error


def _local_archive(path: Path, expected: Digest) -> Path:
    try:
        found = file_digest(path, expected.algorithm)
    except OSError as error:
        raise SourceUnavailableError(f"cannot read {path}: {error.strerror}") from error
    if found != expected:
        raise ChecksumMismatchError(f"{path} has {found}, but {SUMS} beside it says {expected}")
    return path
