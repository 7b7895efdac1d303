"""Tools from a mirror: a folder or URL that ``marketlake tools mirror`` filled, with a list of its files' digests.

An archive in it, NAME-vVERSION-OS-ARCH.tar.gz, is a tool's folder as it lies in a cache, with its receipt.
"""

from pathlib import Path

from toolchain.archive import unpack
from toolchain.bom import Layout, Tool
from toolchain.cache import RECEIPT, Receipt
from toolchain.checksums import Digest, file_digest, find_digest
from toolchain.errors import ChecksumMismatchError, SourceUnavailableError
from toolchain.fetch import Fetcher
from toolchain.platforms import Platform
from toolchain.sources import Origin, Workshop

MIRROR_VARIABLE = "MARKETLAKE_TOOL_MIRROR"
SUMS = "SHA256SUMS"


def archive_name(tool: Tool, platform: Platform) -> str:
    """The file name of a tool in a mirror."""
    return f"{tool.name}-v{tool.version}-{platform}.tar.gz"


def is_remote(mirror: str) -> bool:
    """Whether a mirror is a URL rather than a folder."""
    return "://" in mirror


def from_mirror(tool: Tool, staging: Path, workshop: Workshop) -> Origin:
    """Unpack a tool from the mirror.

    Raises:
        SourceUnavailableError: no mirror is set, it cannot be read, it has no such file, or the tool in it was
            made by another recipe than the one in the bill of materials.
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
    if is_remote(workshop.mirror):
        archive = workshop.fetcher.file(location, workshop.cache.downloads, expected, workshop.detail)
    else:
        archive = _local_archive(Path(location), expected)
    unpack(archive, Layout(), staging)
    return _origin(location, Receipt.read(staging), tool)


def offers(mirror: str | None, tool: Tool, platform: Platform, fetcher: Fetcher) -> bool:
    """Whether a mirror lists a tool."""
    try:
        return bool(mirror and find_digest(_sums(mirror, fetcher), archive_name(tool, platform)))
    except SourceUnavailableError:
        return False


def _origin(location: str, receipt: Receipt | None, tool: Tool) -> Origin:
    """What an unpacked archive's receipt tells, if the tool is the one that is asked for."""
    if receipt is None or receipt.name != tool.name:
        raise SourceUnavailableError(
            f"{location} holds no {RECEIPT} of {tool.name}: it was not written by `marketlake tools mirror`"
        )
    if receipt.source_digest != tool.source_digest(receipt.source):
        raise SourceUnavailableError(
            f"{location} was made by another recipe than the one in the bill of materials: run "
            "`marketlake tools mirror` with this version of the project"
        )
    return Origin(location, receipt.checksum, receipt.verified, receipt.version, receipt.note, receipt)


def _sums(mirror: str, fetcher: Fetcher) -> str:
    if is_remote(mirror):
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
