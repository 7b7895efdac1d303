"""The per-user cache folder: where installed tools lie, and the receipt that each carries."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from toolchain.bom import Bom, Tool, Wheel, load_bom
from toolchain.errors import ToolMissingError
from toolchain.platforms import Platform, this_platform

CACHE_VARIABLE = "MARKETLAKE_CACHE"
RECEIPT = "receipt.json"


@dataclass(frozen=True)
class Receipt:
    """Where an installed tool came from; written into its folder before that becomes visible."""

    name: str
    version: str
    """Of what is really there: a stand-in has another version than the bill of materials asks for."""
    platform: str
    source: str
    """``vendor`` or ``registry``; of a tool that was copied from a mirror, where that one's maker had it from."""
    location: str
    """File, URL, wheel, Go package or Maven coordinates."""
    checksum: str
    verified: str
    """How the checksum was proven."""
    source_digest: str
    """Of what the bill of materials said of that source: another one makes the installed tool stale."""
    installed_at: str
    """UTC, ISO 8601."""
    seconds: float
    """How long it took."""
    root: str = "."
    """The tool's root below the folder of the receipt."""
    note: str | None = None
    mirror: str | None = None
    """The archive that it was copied from, if it came by a mirror."""

    @classmethod
    def read(cls, folder: Path) -> "Receipt | None":
        """The receipt in a tool's folder; None if there is none that can be understood."""
        try:
            return cls(**json.loads((folder / RECEIPT).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def to_json(self) -> str:
        """The receipt file's text; what does not apply is left out."""
        return json.dumps(
            {name: value for name, value in asdict(self).items() if value is not None}, indent=1
        )

    @property
    def identity(self) -> str:
        """What the tool is made of, as text: the same wherever, whenever and however often it is brought."""
        own = {"installed_at", "seconds", "verified", "note", "mirror"}
        return json.dumps({name: value for name, value in asdict(self).items() if name not in own})


@dataclass(frozen=True)
class InstalledTool:
    """An installed tool."""

    name: str
    version: str
    root: Path
    executables: Mapping[str, Path]
    receipt: Receipt


@dataclass(frozen=True)
class Cache:
    """The folders of one cache."""

    folder: Path

    @classmethod
    def default(cls) -> "Cache":
        """``$MARKETLAKE_CACHE``, else ``$XDG_CACHE_HOME/marketlake``, else ``~/.cache/marketlake``."""
        if named := os.environ.get(CACHE_VARIABLE):
            return cls(Path(named).expanduser().absolute())
        return cls(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marketlake")

    @property
    def tools(self) -> Path:
        """One folder per tool, in it one per version and platform."""
        return self.folder / "tools"

    @property
    def staging(self) -> Path:
        """Unfinished installations, on the same disk as the finished ones so that a rename completes them."""
        return self.tools / ".staging"

    @property
    def downloads(self) -> Path:
        """Archives that are being downloaded, or were and are not installed yet."""
        return self.folder / "downloads"

    @property
    def logs(self) -> Path:
        """The full output of the last build of each tool."""
        return self.folder / "logs"

    @property
    def go(self) -> Path:
        """Modules (``mod``) and compiled packages (``build``) of all Go builds."""
        return self.folder / "go"

    def place(self, tool: Tool, platform: Platform) -> Path:
        """The folder of a tool, installed or not."""
        return self.tools / tool.name / f"{tool.version}-{platform}"

    def find(self, tool: Tool, platform: Platform) -> InstalledTool | None:
        """The installed tool, or None."""
        place = self.place(tool, platform)
        receipt = Receipt.read(place)
        return self.installed(tool, place, receipt) if receipt else None

    def installed(self, tool: Tool, place: Path, receipt: Receipt) -> InstalledTool:
        """The tool whose folder and receipt these are."""
        root = (place / receipt.root).resolve()
        executables = {program: root / "bin" / program for program in tool.executables}
        return InstalledTool(tool.name, receipt.version, root, executables, receipt)


def root_of(tool: Tool, source: str) -> str:
    """The tool's root below its folder; a wheel keeps its layout, by which its libraries find each other."""
    return tool.registry.keep[0] if source == "registry" and isinstance(tool.registry, Wheel) else "."


def locate(name: str, *, bom: Bom | None = None, cache: Cache | None = None) -> InstalledTool:
    """The installed tool of the pinned version.

    Args:
        name: of a tool in the bill of materials.
        bom: another bill of materials than the project's.
        cache: another cache than the user's.

    Raises:
        UnknownToolError: the bill of materials lists no such tool.
        ToolMissingError: it is not installed.
    """
    tool = (bom or load_bom()).tool(name)
    cache = cache or Cache.default()
    platform = this_platform()
    found = cache.find(tool, platform)
    if found is None:
        raise ToolMissingError(
            f"{name} {tool.version} is not installed: {cache.place(tool, platform)} holds none. "
            f"Run `marketlake tools install {name}` (or `make tools` for all)."
        )
    return found
