"""Vendors' releases, in the three layouts that occur: a folder of programs, a whole tree, one program."""

from pathlib import Path

import pytest

from tests.unit.toolchain.conftest import Site, make_tar, sample_bom, sha256
from toolchain.bom import Tool
from toolchain.errors import ChecksumMismatchError, SourceUnavailableError
from toolchain.sources import Workshop
from toolchain.sources.vendor import from_vendor

PROGRAMS = make_tar({"sample/sample": b"program", "sample/sample-host": b"host"}, "w:gz")


def sold(site: Site, extra: str = "", verification: str = "published") -> Tool:
    """The sample tool, published by a vendor whose host is the test's."""
    return sample_bom(f"""
[sample.vendor]
url = "{site.url}/v{{version}}/sample-{{platform}}.tgz"
checksums = "{site.url}/v{{version}}/sums.txt"
verification = "{verification}"
platforms = {{ linux-amd64 = "linux-x64" }}
{extra or "strip = 1"}
""").tool("sample")


def publish(site: Site, content: bytes, version: str = "1.2.3") -> None:
    site.files[f"/v{version}/sample-linux-x64.tgz"] = content
    site.files[f"/v{version}/sums.txt"] = f"{sha256(content)}  sample-linux-x64.tgz\n".encode()


def test_a_program_is_picked_out_of_the_vendors_folder(site: Site, staging: Path, workshop: Workshop) -> None:
    publish(site, PROGRAMS)
    tool = sold(site, 'strip = 1\npick = { "sample" = "bin/sample" }')
    origin = from_vendor(tool, staging, workshop)
    assert (staging / "bin/sample").read_bytes() == b"program"
    assert not list(staging.rglob("sample-host"))
    assert origin.location == f"{site.url}/v1.2.3/sample-linux-x64.tgz"
    assert origin.checksum == f"sha256:{sha256(PROGRAMS)}"
    assert origin.verified == f"against the vendor's list {site.url}/v1.2.3/sums.txt, read over TLS"


def test_a_whole_tree_is_taken_as_it_lies(site: Site, staging: Path, workshop: Workshop) -> None:
    publish(site, make_tar({"kafka_2.13/libs/a.jar": b"jar", "kafka_2.13/bin/run.sh": b"#!"}, "w:gz"))
    from_vendor(sold(site, "strip = 1"), staging, workshop)
    assert (staging / "libs/a.jar").read_bytes() == b"jar"


def test_a_program_alone_in_the_archive_is_renamed(site: Site, staging: Path, workshop: Workshop) -> None:
    publish(site, make_tar({"sample-prod": b"program"}, "w:gz"))
    from_vendor(sold(site, 'pick = { "sample-prod" = "bin/sample" }'), staging, workshop)
    assert (staging / "bin/sample").read_bytes() == b"program"


def test_a_pinned_digest_needs_no_list(site: Site, staging: Path, workshop: Workshop) -> None:
    publish(site, PROGRAMS)
    del site.files["/v1.2.3/sums.txt"]
    tool = sold(site, f'strip = 1\nsha256 = {{ linux-amd64 = "{sha256(PROGRAMS)}" }}', "pinned")
    assert from_vendor(tool, staging, workshop).verified == "against the bill of materials"


def test_the_vendor_may_number_the_release_otherwise(site: Site, staging: Path, workshop: Workshop) -> None:
    publish(site, PROGRAMS, "2.0")
    assert from_vendor(sold(site, 'strip = 1\nversion = "2.0"'), staging, workshop).version == "2.0"


def test_a_changed_release_is_refused(site: Site, staging: Path, workshop: Workshop) -> None:
    publish(site, PROGRAMS)
    site.files["/v1.2.3/sample-linux-x64.tgz"] = make_tar({"sample/sample": b"evil"}, "w:gz")
    with pytest.raises(ChecksumMismatchError, match=r"sample-linux-x64\.tgz has sha256:"):
        from_vendor(sold(site), staging, workshop)
    assert list(staging.iterdir()) == []


def test_a_list_without_the_file_is_no_proof(site: Site, staging: Path, workshop: Workshop) -> None:
    publish(site, PROGRAMS)
    site.files["/v1.2.3/sums.txt"] = b"0  other.tgz\n"
    with pytest.raises(SourceUnavailableError, match=r"sums\.txt does not name sample-linux-x64\.tgz"):
        from_vendor(sold(site), staging, workshop)


def test_a_platform_that_the_vendor_leaves_out_is_named(
    site: Site, staging: Path, workshop: Workshop
) -> None:
    tool = sold(site, "strip = 1")
    object.__setattr__(tool.vendor, "platforms", {"darwin-arm64": "mac"})
    with pytest.raises(SourceUnavailableError, match="publishes for darwin-arm64, not for linux-amd64"):
        from_vendor(tool, staging, workshop)


def test_where_there_is_no_release_the_reason_is_given(staging: Path, workshop: Workshop) -> None:
    with pytest.raises(SourceUnavailableError, match="it is only a sample"):
        from_vendor(sample_bom().tool("sample"), staging, workshop)
