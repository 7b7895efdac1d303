"""Jars come through Maven where it is, else by their coordinates; only locked bytes are accepted."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.toolchain.conftest import Site, sample_bom, sha256
from toolchain.bom import MavenJars
from toolchain.errors import ChecksumMismatchError, SourceUnavailableError
from toolchain.sources import Workshop
from toolchain.sources.maven import central_mirror, from_maven

JARS = {"one-1.0.jar": b"first", "two-2.1.jar": b"second"}
TOOL = sample_bom().tool("sample")
SETTINGS = """<settings xmlns="http://maven.apache.org/SETTINGS/1.0.0"><mirrors>
<mirror><id>other</id><url>http://other.test</url><mirrorOf>snapshots,!central</mirrorOf></mirror>
<mirror><id>ours</id><url>{url}</url><mirrorOf>{of}</mirrorOf></mirror>
</mirrors></settings>"""


@pytest.fixture
def recipe(recipes: Path) -> MavenJars:
    folder = recipes / "sample"
    folder.mkdir()
    (folder / "pom.xml").write_text("<project/>")
    lines = [f"org.sample:{name[:3]}:{name[4:7]} {sha256(content)}" for name, content in JARS.items()]
    (folder / "jars.lock").write_text("\n".join(lines) + "\n")
    return MavenJars("sample")


@pytest.fixture
def home(tmp_path: Path, site: Site, workshop: Workshop) -> Workshop:
    """A user without Maven whose settings name a mirror of the central repository."""
    (tmp_path / "home/.m2").mkdir(parents=True)
    (tmp_path / "home/.m2/settings.xml").write_text(SETTINGS.format(url=f"{site.url}/repo", of="central"))
    for name, content in JARS.items():
        site.files[f"/repo/org/sample/{name[:3]}/{name[4:7]}/{name}"] = content
    return replace(workshop, environment={"HOME": str(tmp_path / "home"), "PATH": str(tmp_path)})


def maven(tmp_path: Path, workshop: Workshop, jars: dict[str, bytes], status: int = 0) -> Workshop:
    """A user with a Maven that resolves to the given jars."""
    script = tmp_path / "mvn"
    writes = "\n".join(f'printf %s {content.decode()} > "$out/{name}"' for name, content in jars.items())
    script.write_text(
        "#!/bin/sh\n"
        "for word; do case $word in -DoutputDirectory=*) out=${word#*=};; esac; done\n"
        f'mkdir -p "$out"\n{writes}\n[ {status} = 0 ] || echo "repository refused" >&2\nexit {status}\n'
    )
    script.chmod(0o755)
    return replace(workshop, environment={"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"})


def test_maven_brings_the_jars_where_it_is_installed(
    tmp_path: Path, recipe: MavenJars, staging: Path, workshop: Workshop
) -> None:
    origin = from_maven(TOOL, recipe, staging, maven(tmp_path, workshop, JARS))
    assert {path.name: path.read_bytes() for path in (staging / "libs").iterdir()} == JARS
    assert origin.location == "2 Maven artifacts of sample/jars.lock"


def test_without_maven_the_mirror_of_the_users_settings_is_asked(
    recipe: MavenJars, staging: Path, home: Workshop, site: Site
) -> None:
    from_maven(TOOL, recipe, staging, home)
    assert {path.name: path.read_bytes() for path in (staging / "libs").iterdir()} == JARS
    assert ("/repo/org/sample/one/1.0/one-1.0.jar", None) in site.requests


def test_when_maven_fails_the_jars_are_fetched_by_their_coordinates(
    tmp_path: Path, recipe: MavenJars, staging: Path, home: Workshop
) -> None:
    broken = maven(tmp_path, home, {}, status=1)
    settled = {**broken.environment, "HOME": home.environment["HOME"]}
    from_maven(TOOL, recipe, staging, replace(broken, environment=settled))
    assert (staging / "libs/two-2.1.jar").read_bytes() == b"second"


def test_a_part_that_a_killed_run_left_is_fetched_anew(
    recipe: MavenJars, staging: Path, home: Workshop
) -> None:
    part = home.cache.downloads / "maven/org/sample/one/1.0/one-1.0.jar"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"fir")
    from_maven(TOOL, recipe, staging, home)
    assert (staging / "libs/one-1.0.jar").read_bytes() == b"first"


def test_another_jar_than_the_locked_one_is_refused(
    recipe: MavenJars, staging: Path, home: Workshop, site: Site
) -> None:
    site.files["/repo/org/sample/one/1.0/one-1.0.jar"] = b"evil!"
    with pytest.raises(ChecksumMismatchError, match=r"one-1\.0\.jar has sha256:.* is locked"):
        from_maven(TOOL, recipe, staging, home)


def test_jars_that_maven_resolves_beyond_the_lock_are_refused(
    tmp_path: Path, recipe: MavenJars, staging: Path, workshop: Workshop
) -> None:
    offline = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text(SETTINGS.format(url="http://127.0.0.1:9", of="*"))
    more = maven(tmp_path, workshop, {**JARS, "new-3.jar": b"x"})
    with pytest.raises(SourceUnavailableError, match=r"other jars than jars\.lock names: new-3\.jar"):
        from_maven(TOOL, recipe, staging, replace(more, environment=offline))


def test_both_ways_that_failed_are_told(recipe: MavenJars, staging: Path, home: Workshop, site: Site) -> None:
    site.files.clear()
    with pytest.raises(SourceUnavailableError, match=r"mvn is not installed\norg\.sample:one:1\.0: "):
        from_maven(TOOL, recipe, staging, home)


@pytest.mark.parametrize(
    ("of", "expected"),
    [("central", "http://m"), ("*", "http://m"), ("external:*", "http://m"), ("*,!central", None)],
)
def test_the_mirror_of_central_is_found_in_the_settings(
    tmp_path: Path, of: str, expected: str | None
) -> None:
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text(SETTINGS.format(url="http://m", of=of))
    assert central_mirror({"HOME": str(tmp_path)}) == expected


def test_without_readable_settings_there_is_no_mirror(tmp_path: Path) -> None:
    assert central_mirror({"HOME": str(tmp_path)}) is None
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text("<settings")
    assert central_mirror({"HOME": str(tmp_path)}) is None
