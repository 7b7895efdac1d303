"""What can be seen of a service from where it runs, whoever runs it there."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """What runs of a service."""

    running: int = 0
    """Live processes, or ready pods."""
    trouble: str | None = None
    """What is wrong, in the words of who runs it."""
    memory_bytes: int | None = None
    uptime_s: float | None = None
    """Seconds since the youngest of them started."""
    restarts: int | None = None
    """How often it was started anew; None where nobody counts."""


class Target(Protocol):
    """Where services run."""

    hint: str
    """Where a person finds their logs."""

    def status(self, control: str) -> ServiceStatus:
        """See what `control` names (:attr:`marketlake.settings.ServiceInfo.control`)."""
        ...
