"""Where tools come from: a mirror, the vendor's release, a package registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolchain.cache import Cache, InstalledTool, Receipt
from toolchain.fetch import Fetcher
from toolchain.platforms import Platform


@dataclass(frozen=True)
class Origin:
    """The origin of a tool, for the receipt."""

    location: str
    checksum: str
    verified: str
    version: str | None = None
    """None: the one of the bill of materials."""
    note: str | None = None
    copied: Receipt | None = None
    """The receipt that came with the tool from a mirror: it keeps saying what the tool is made of."""


@dataclass(frozen=True)
class Workshop:
    """What a source needs to install a tool."""

    cache: Cache
    platform: Platform
    fetcher: Fetcher
    mirror: str | None
    """Folder or URL."""
    step: Callable[[str], None]
    detail: Callable[[str], None]
    require: Callable[[str], InstalledTool]
    """Installs a tool that a build needs."""
    environment: Mapping[str, str]
    compiling: Callable[[Mapping[str, str]], None]
    """Told, with the environment of the Go command, that a compiler takes over from the network."""

    def log(self, tool: str) -> Path:
        """The file for the full output of what is run for a tool."""
        self.cache.logs.mkdir(parents=True, exist_ok=True)
        return self.cache.logs / f"{tool}.log"
