"""Jar files by their Maven coordinates, each proven by the sha256 in the recipe's committed jars.lock."""

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from toolchain.bom import RECIPES, MavenJars, Tool
from toolchain.checksums import Digest, file_digest
from toolchain.commands import run
from toolchain.errors import ChecksumMismatchError, SourceUnavailableError
from toolchain.sources import Origin, Workshop

_TOGETHER = 6
"""Jars downloaded at once."""


@dataclass(frozen=True)
class Jar:
    """A locked jar file."""

    group: str
    artifact: str
    version: str
    digest: Digest

    @property
    def file_name(self) -> str:
        """As Maven names it."""
        return f"{self.artifact}-{self.version}.jar"


def locked_jars(recipe: Path) -> list[Jar]:
    """The lines of a recipe's jars.lock: ``group:artifact:version sha256``."""
    jars = []
    for line in (recipe / "jars.lock").read_text().splitlines():
        coordinates, value = line.split()
        group, artifact, version = coordinates.split(":")
        jars.append(Jar(group, artifact, version, Digest("sha256", value)))
    return jars


def from_maven(tool: Tool, jars: MavenJars, staging: Path, workshop: Workshop) -> Origin:
    """Bring a tool's jars into ``libs``.

    Maven itself does it where it is installed, for it alone knows all that a company's settings may say.
    Where it is not, the jars are fetched by their coordinates from the repository that the user's settings
    put in the place of Maven's default, or else from that default.

    Raises:
        SourceUnavailableError: the repository does not answer or lacks a jar.
        ChecksumMismatchError: a jar is not the locked one.
    """
    recipe = RECIPES / jars.recipe
    locked = locked_jars(recipe)
    libs = staging / "libs"
    libs.mkdir()
    try:
        _copy_by_maven(recipe / "pom.xml", locked, libs, workshop, workshop.log(tool.name))
    except SourceUnavailableError as by_maven:
        try:
            _fetch_by_coordinates(locked, libs, workshop)
        except SourceUnavailableError as by_coordinates:
            raise SourceUnavailableError(f"{by_maven}\n{by_coordinates}") from by_coordinates
    for jar in locked:
        found = file_digest(libs / jar.file_name)
        if found != jar.digest:
            raise ChecksumMismatchError(f"{jar.file_name} has {found}, but {jar.digest} is locked")
    return Origin(
        f"{len(locked)} Maven artifacts of {jars.recipe}/jars.lock",
        f"jars.lock {file_digest(recipe / 'jars.lock')}",
        "every jar against the sha256 in jars.lock",
        jars.version,
    )


def _copy_by_maven(pom: Path, locked: list[Jar], libs: Path, workshop: Workshop, log: Path) -> None:
    maven = shutil.which("mvn", path=workshop.environment.get("PATH"))
    if maven is None:
        raise SourceUnavailableError("mvn is not installed")
    workshop.step(f"downloading {len(locked)} jars with Maven")
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={libs}", "-DincludeScope=runtime"]
    run([maven, "--batch-mode", "--quiet", "--file", pom, *goal], log=log)
    differing = {path.name for path in libs.iterdir()} ^ {jar.file_name for jar in locked}
    if differing:
        names = ", ".join(sorted(differing))
        raise ChecksumMismatchError(f"Maven resolved other jars than jars.lock names: {names}")


def _fetch_by_coordinates(locked: list[Jar], libs: Path, workshop: Workshop) -> None:
    from jgo.maven import MavenContext  # a client that knows Maven's default repository; slow to import
    from requests import RequestException

    workshop.step(f"downloading {len(locked)} jars")
    central = central_mirror(workshop.environment)
    context = MavenContext(
        repo_cache=workshop.cache.downloads / "maven", remote_repos={"central": central} if central else None
    )
    arrived = 0

    def fetch(jar: Jar) -> None:
        nonlocal arrived
        artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
        try:
            path = artifact.resolve()
            if file_digest(path) != jar.digest:  # a part that a killed run left
                path.unlink()
                path = artifact.resolve()
            shutil.copyfile(path, libs / jar.file_name)
        except RuntimeError as error:
            raise SourceUnavailableError(f"{jar.group}:{jar.artifact}:{jar.version}: {error}") from error
        except RequestException as error:
            raise SourceUnavailableError(f"the Maven repository cannot be reached: {error}") from error
        arrived += 1
        workshop.detail(f"{arrived} of {len(locked)}: {jar.file_name}")

    with ThreadPoolExecutor(_TOGETHER) as pool:
        for _ in pool.map(fetch, locked):
            pass


def central_mirror(environment: Mapping[str, str]) -> str | None:
    """The repository that the user's Maven settings put in the place of the central one, if they do."""
    settings = Path(environment.get("HOME", "~")).expanduser() / ".m2" / "settings.xml"
    try:
        root = ET.fromstring(settings.read_text())  # noqa: S314 - the user's own file
    except (OSError, ET.ParseError):
        return None
    for mirror in root.iterfind("{*}mirrors/{*}mirror"):
        of = [part.strip() for part in (mirror.findtext("{*}mirrorOf") or "").split(",")]
        if "!central" not in of and {"*", "external:*", "central"} & set(of):
            return mirror.findtext("{*}url")
    return None
