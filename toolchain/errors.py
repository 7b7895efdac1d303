"""Errors of the toolchain; each message says what was tried and what to do next."""

from dataclasses import dataclass


class ToolchainError(Exception):
    """Base of the toolchain's errors that a user can act on."""


class ToolMissingError(ToolchainError):
    """A pinned tool is not installed."""


class UnknownToolError(ToolchainError):
    """The bill of materials lists no tool of that name."""


class BomError(ToolchainError):
    """The bill of materials is inconsistent."""


class DiskSpaceError(ToolchainError):
    """The disk of the cache has too little space."""


class SourceUnavailableError(ToolchainError):
    """One source cannot give a tool; the next one may."""


class ChecksumMismatchError(SourceUnavailableError):
    """The checksum of a download differs from the pinned or published one."""


class CommandFailedError(SourceUnavailableError):
    """A program that builds or downloads ended with an error."""


@dataclass(frozen=True)
class Attempt:
    """One source that was tried for a tool, and why it gave nothing."""

    source: str
    reason: str


class InstallError(ToolchainError):
    """No source gave a tool."""

    def __init__(self, tool: str, version: str, attempts: tuple[Attempt, ...], remedy: str) -> None:
        self.tool = tool
        self.attempts = attempts
        tried = "\n".join(f"  - {attempt.source}: {_indented(attempt.reason)}" for attempt in attempts)
        super().__init__(f"{tool} {version} could not be installed. Tried, in this order:\n{tried}\n{remedy}")


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n      ")
