"""The operating system and processor that tools are installed for, named as Go and most vendors name them."""

import platform
from dataclasses import dataclass

from toolchain.errors import ToolchainError

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_SYSTEMS = {"linux": "linux", "darwin": "darwin"}


@dataclass(frozen=True)
class Platform:
    """An operating system and a processor, e.g. ``linux-amd64``."""

    system: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.system}-{self.architecture}"


def this_platform() -> Platform:
    """The platform of this machine.

    Raises:
        ToolchainError: the machine is neither Linux nor macOS, or its processor neither x86-64 nor arm64.
    """
    system, machine = platform.system().lower(), platform.machine().lower()
    if system not in _SYSTEMS or machine not in _ARCHITECTURES:
        raise ToolchainError(
            f"no tools are listed for {system} on {machine}; supported are Linux and macOS on x86-64 or arm64"
        )
    return Platform(_SYSTEMS[system], _ARCHITECTURES[machine])
