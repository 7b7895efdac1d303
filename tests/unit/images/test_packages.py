"""Packages are resolved, proven and opened, and nothing of them is run."""

import shutil
from pathlib import Path

import pytest

from tests.unit.images.distribution import Distribution
from toolchain.checksums import file_digest
from toolchain.images.errors import ImageError
from toolchain.images.layer import Member, link, program
from toolchain.images.packages import Package, Packages, distribution


@pytest.fixture
def packages(tmp_path: Path, debian: Distribution) -> Packages:
    return Packages(tmp_path / "apt", lambda _text: None)


def test_a_plan_names_what_is_needed_as_well(packages: Packages) -> None:
    names = [package.name for package in packages.plan(["python3"])]
    assert len(names) == 2
    assert names[0] == "python3"
    assert names[1].startswith("python3.")


def test_lists_are_brought_once(packages: Packages, debian: Distribution) -> None:
    packages.plan(["libc6"])
    packages.plan(["tzdata"])
    assert debian.asked == ["update", "install", "install"]


def test_one_broken_source_of_many_does_not_matter(packages: Packages, debian: Distribution) -> None:
    debian.set(partly_away=True)
    assert [package.name for package in packages.plan(["libc6"])] == ["libc6"]


def test_without_any_source_it_is_told(packages: Packages, debian: Distribution) -> None:
    debian.set(away=True)
    with pytest.raises(ImageError, match="no source answers"):
        packages.plan(["libc6"])


def test_an_unknown_package_is_told_with_a_way_out(packages: Packages) -> None:
    with pytest.raises(ImageError, match=r"(?s)Unable to locate package nothing.*push to a registry"):
        packages.plan(["nothing"])


def test_an_empty_plan_is_no_plan(packages: Packages) -> None:
    with pytest.raises(ImageError, match="planned nothing"):
        packages.plan([])


def test_what_services_never_read_is_left_out(packages: Packages) -> None:
    members = packages.members(packages.plan(["libc6"]))
    assert members["usr/share/doc/libc6/copyright"] == Member(b"GPL")
    assert not [path for path in members if "/man/" in path or "changelog" in path or "gconv" in path]


def test_folders_are_where_distributions_have_them_today(packages: Packages) -> None:
    members = packages.members(packages.plan(["libc6", "busybox-static"]))
    assert members["usr/lib/x86_64-linux-gnu/libc.so.6"] == Member(b"libc")
    assert members["lib"] == link("usr/lib")
    assert members["bin"] == link("usr/bin")
    assert "sbin" not in members


def test_links_and_programs_stay_what_they_are(packages: Packages) -> None:
    members = packages.members(packages.plan(["python3"]))
    python = next(path for path in members if path.startswith("usr/bin/python3."))
    assert members[python] == program(b"ELF")
    assert members[python.replace("python3", "alias3")] == program(b"ELF")
    assert members["usr/bin/python3"] == link(Path(python).name)


def test_archives_that_are_there_are_not_brought_again(packages: Packages, debian: Distribution) -> None:
    planned = packages.plan(["libc6"])
    first = packages.fetch(planned)
    debian.set(gone=True)
    assert packages.fetch(planned) == first


def test_a_plan_from_another_machine_is_fetched_like_ones_own(
    packages: Packages, debian: Distribution, tmp_path: Path
) -> None:
    planned = packages.plan(["libc6"])
    elsewhere = Packages(tmp_path / "elsewhere", lambda _text: None)
    assert elsewhere.members(planned) == packages.members(planned)


def test_replaced_packages_are_told_with_a_way_out(packages: Packages, debian: Distribution) -> None:
    planned = packages.plan(["libc6"])
    debian.set(gone=True)
    with pytest.raises(ImageError, match="--refresh"):
        packages.fetch(planned)


def test_an_archive_that_was_not_announced_is_refused(packages: Packages) -> None:
    planned = packages.plan(["libc6"])[0]
    other = Package(planned.name, planned.version, planned.architecture, planned.file, "0" * 64)
    with pytest.raises(ImageError, match="did not arrive as apt announced it"):
        packages.members([other])


def test_a_broken_archive_is_told(packages: Packages, debian: Distribution) -> None:
    planned = packages.plan(["libc6"])[0]
    packages.fetch([planned])
    archive = packages.folder / "archives" / planned.file
    archive.write_bytes(b"no archive")
    broken = Package(
        planned.name, planned.version, planned.architecture, planned.file, file_digest(archive).value
    )
    with pytest.raises(ImageError, match=r"dpkg-deb cannot open .*delete it"):
        packages.members([broken])


def test_an_archive_that_breaks_off_at_its_end_is_told(packages: Packages, debian: Distribution) -> None:
    planned = packages.plan(["libc6"])
    packages.fetch(planned)
    broken = debian.folder / "bin/dpkg-deb"
    broken.write_text(f'#!/bin/sh\n{shutil.which("dpkg-deb")} "$@"\nexit 2\n')
    broken.chmod(0o755)
    with pytest.raises(ImageError, match="dpkg-deb ended with 2"):
        packages.members(planned)


def test_without_dpkg_it_is_told(packages: Packages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planned = packages.plan(["libc6"])
    packages.fetch(planned)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="cannot start dpkg-deb"):
        packages.members(planned)


def test_a_component_says_which_package_of_which_distribution() -> None:
    component = Package("libc6", "2.36", "amd64", "libc6_2.36_amd64.deb", "a" * 64).component
    assert component["purl"] == f"pkg:deb/{distribution()[0]}/libc6@2.36?arch=amd64"
    assert component["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
