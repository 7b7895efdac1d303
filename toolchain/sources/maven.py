"""Jar files by their Maven coordinates, each proven by the sha256 that is committed in the recipe's jars.lock."""

import os
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
        jars.append(Jar(*coordinates.split(":"), digest=Digest("sha256", value)))
    return jars


def from_maven(tool: Tool, jars: MavenJars, staging: Path, workshop: Workshop) -> Origin:
    """Bring a tool's jars into ``libs``.

    Maven itself does it where it is installed, for it alone knows everything that a company's settings may say. Where
    it is not, the jars are fetched by their coordinates from the repository that the user's settings put in the place
    of Maven's default, or else from that default.

    Raises:
        SourceUnavailableError: the repository does not answer or lacks a jar.
        ChecksumMismatchError: a jar is not the locked one.
    """
    recipe = RECIPES / jars.recipe
    locked = locked_jars(recipe)
    libs = staging / "libs"
    libs.mkdir()
    failures = []
    for bring in (_by_maven, _by_coordinates):
        try:
            bring(tool, recipe, locked, libs, workshop)
            break
        except SourceUnavailableError as error:
            failures.append(str(error))
    else:
        raise SourceUnavailableError("\n".join(failures))
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


def _by_maven(tool: Tool, recipe: Path, locked: list[Jar], libs: Path, workshop: Workshop) -> None:
    maven = shutil.which("mvn", path=workshop.environment.get("PATH"))
    if maven is None:
        raise SourceUnavailableError("mvn is not installed")
    workshop.step(f"downloading {len(locked)} jars with Maven")
    run(
        [maven, "--batch-mode", "--quiet", "--file", recipe / "pom.xml"]
        + ["dependency:copy-dependencies", f"-DoutputDirectory={libs}", "-DincludeScope=runtime"],
        log=workshop.log(tool.name),
    )
    unlocked = {path.name for path in libs.iterdir()} ^ {jar.file_name for jar in locked}
    if unlocked:
        raise ChecksumMismatchError(
            f"Maven resolved other jars than jars.lock names: {', '.join(sorted(unlocked))}"
        )


def _by_coordinates(tool: Tool, recipe: Path, locked: list[Jar], libs: Path, workshop: Workshop) -> None:
    from jgo.maven import MavenContext  # a client that knows Maven's default repository; only needed here

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
        except (OSError, RuntimeError) as error:
            raise SourceUnavailableError(
                f"cannot download {jar.group}:{jar.artifact}:{jar.version}: {error}"
            ) from error
        shutil.copyfile(path, libs / jar.file_name)
        arrived += 1
        workshop.detail(f"{arrived} of {len(locked)}: {jar.file_name}")

    with ThreadPoolExecutor(_TOGETHER) as pool:
        list(pool.map(fetch, locked))


def central_mirror(environment: Mapping[str, str]) -> str | None:
    """The repository that the user's Maven settings put in the place of the central one; None: they put none."""
    settings = Path(environment.get("HOME", os.path.expanduser("~"))) / ".m2" / "settings.xml"
    try:
        root = ET.fromstring(settings.read_text())  # noqa: S314 - the user's own file
    except (OSError, ET.ParseError):
        return None
    for mirror in root.iterfind("{*}mirrors/{*}mirror"):
        of = [part.strip() for part in (mirror.findtext("{*}mirrorOf") or "").split(",")]
        if "!central" not in of and {"*", "external:*", "central"} & set(of):
            return mirror.findtext("{*}url")
    return None
