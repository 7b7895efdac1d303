"""What a target reports of a service that runs on it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """What a target reports of one service."""

    running: int = 0
    """Live processes, or ready pods."""
    trouble: str | None = None
    """What is wrong, in the words of who runs it."""
    memory_bytes: int | None = None
    uptime_s: float | None = None
    """Seconds since the youngest of them started."""
    restarts: int | None = None
    """How often it was started anew; None where it is not counted."""


class Target(Protocol):
    """Where services run."""

    hint: str
    """Where a person finds their logs."""

    def status(self, control: str) -> ServiceStatus:
        """Return the status of what `control` names (:attr:`marketlake.settings.ServiceInfo.control`)."""
        ...
