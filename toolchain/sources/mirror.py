"""Tools from a mirror: a folder or URL with NAME-vVERSION-OS-ARCH.tar.xz files beside their SHA256SUMS."""

from pathlib import Path

from toolchain.archive import unpack
from toolchain.bom import Tool
from toolchain.checksums import Digest, file_digest, find_digest
from toolchain.errors import ChecksumMismatchError, SourceUnavailableError
from toolchain.fetch import Fetcher
from toolchain.platforms import Platform
from toolchain.sources import Origin, Workshop

MIRROR_VARIABLE = "MARKETLAKE_TOOL_MIRROR"
SUMS = "SHA256SUMS"


def archive_name(tool: Tool, platform: Platform) -> str:
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
    location = f"{workshop.mirror.rstrip('/')}/{name}"
    expected = find_digest(_sums(workshop.mirror, workshop.fetcher), name)
    if expected is None:
        raise SourceUnavailableError(f"{workshop.mirror} lists no {name} in its {SUMS}")
    workshop.step(f"fetching {name} from the mirror")
    if _is_remote(workshop.mirror):
        archive = workshop.fetcher.file(location, workshop.cache.downloads, expected, workshop.detail)
    else:
        archive = _local_archive(Path(location), expected)
    unpack(archive, tool.mirror, staging)
    return Origin(location, str(expected), f"against the mirror's {SUMS}")


def offers(mirror: str | None, tool: Tool, platform: Platform, fetcher: Fetcher) -> bool:
    """Whether a mirror lists a tool."""
    try:
        return bool(mirror and find_digest(_sums(mirror, fetcher), archive_name(tool, platform)))
    except SourceUnavailableError:
        return False


def _is_remote(mirror: str) -> bool:
    return "://" in mirror


def _sums(mirror: str, fetcher: Fetcher) -> str:
    if _is_remote(mirror):
        return fetcher.text(f"{mirror.rstrip('/')}/{SUMS}")
    try:
        return (Path(mirror) / SUMS).read_text()
    except OSError as error:
        raise SourceUnavailableError(f"cannot read {Path(mirror) / SUMS}: {error.strerror}") from error


def _local_archive(path: Path, expected: Digest) -> Path:
    try:
        found = file_digest(path, expected.algorithm)
    except OSError as error:
        raise SourceUnavailableError(f"cannot read {path}: {error.strerror}") from error
    if found != expected:
        raise ChecksumMismatchError(f"{path} has {found}, but {SUMS} beside it says {expected}")
    return path
