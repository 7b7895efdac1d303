"""The bill of materials of all tools, and the installer that gets each from the first source that works."""

from collections.abc import Sequence

from toolchain.cache import InstalledTool, locate
from toolchain.errors import InstallError, ToolchainError, ToolMissingError

__all__ = ["InstallError", "InstalledTool", "ToolMissingError", "ToolchainError", "install", "locate"]


def install(names: Sequence[str] | None = None) -> list[InstalledTool]:
    """Bring the named tools (None: all that the platform needs) into the cache; what is there costs nothing.

    Raises:
        UnknownToolError: a name that the bill of materials does not list.
        ToolchainError: a tool could not be had from any source, or the disk is full.
    """
    from toolchain.installation import Installation  # brings httpx and rich, which `locate` must not cost

    return Installation().install(names)
