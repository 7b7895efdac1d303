"""The policy pack as an argument of Pulumi's commands, and whether it can run here."""

from pathlib import Path

import policies
from toolchain import ToolMissingError, locate

_PACK = Path(policies.__file__).parent
_HOST, _FIRST = "pulumi-language-python", (3, 250)
"""The language host runs policy packs from this version on; the stand-in from the Go registry is older."""


class PoliciesUnavailableError(Exception):
    """Policies were asked for and cannot run here; the message says why, and what to do."""


def why_no_policies() -> str:
    """Why policies cannot run with the tools that are installed; empty if they can."""
    try:
        version = locate(_HOST).version
    except ToolMissingError as error:
        return str(error)
    if tuple(int(part) for part in version.split(".")[:2]) >= _FIRST:
        return ""
    return (
        f"{_HOST} {version} is installed, a stand-in that cannot run policy packs. Where the vendor's release or a "
        f"mirror (MARKETLAKE_TOOL_MIRROR) is reachable, `marketlake tools install --again {_HOST}` brings the one "
        "that can"
    )


def levels_file(settings_file: Path, environment: str) -> Path:
    """Where an environment says at which level a rule holds: beside its settings, in Pulumi's own form."""
    return settings_file.parent / f"policies.{environment}.json"


def policy_arguments(levels: Path) -> list[str]:
    """Return the arguments of `pulumi preview` and `pulumi policy analyze`."""
    arguments = ["--policy-pack", str(_PACK)]
    return [*arguments, "--policy-pack-config", str(levels)] if levels.exists() else arguments
