"""Tools from the archives that their vendors publish."""

from pathlib import Path

from toolchain.archive import unpack
from toolchain.bom import Tool, Vendor
from toolchain.checksums import Digest, find_digest
from toolchain.errors import SourceUnavailableError
from toolchain.sources import Origin, Workshop


def from_vendor(tool: Tool, staging: Path, workshop: Workshop) -> Origin:
    """Download the vendor's release of a tool and unpack it.

    Raises:
        SourceUnavailableError: there is none for this platform, or the vendor's host cannot be reached.
        ChecksumMismatchError: the archive is not the one that was pinned or that the vendor's list names.
    """
    vendor = tool.vendor
    if vendor is None:
        raise SourceUnavailableError(str(tool.no_vendor))
    platform = str(workshop.platform)
    if platform not in vendor.platforms:
        raise SourceUnavailableError(
            f"the vendor publishes for {', '.join(vendor.platforms)}, not for {platform}"
        )
    version = vendor.version or tool.version
    url = vendor.url.format(version=version, platform=vendor.platforms[platform])
    workshop.step(f"downloading {tool.name} {version} from the vendor")
    expected, verified = _expected(vendor, platform, url, version, workshop)
    archive = workshop.fetcher.file(url, workshop.cache.downloads, expected, workshop.detail)
    workshop.step("unpacking")
    unpack(archive, vendor.layout, staging)
    return Origin(url, str(expected), verified, vendor.version)


def _expected(
    vendor: Vendor, platform: str, url: str, version: str, workshop: Workshop
) -> tuple[Digest, str]:
    if vendor.verification == "pinned":
        return Digest("sha256", vendor.sha256[platform]), "against the bill of materials"
    listed = str(vendor.checksums).format(version=version, platform=vendor.platforms[platform])
    name = url.rpartition("/")[2]
    expected = find_digest(workshop.fetcher.text(listed), name)
    if expected is None:
        raise SourceUnavailableError(f"the vendor's checksum list {listed} does not name {name}")
    return expected, f"against the vendor's list {listed}, read over TLS"
