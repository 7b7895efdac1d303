"""The policy pack as an argument of Pulumi's commands."""

from pathlib import Path

import policies

_PACK = Path(policies.__file__).parent


def levels_file(settings_file: Path, environment: str) -> Path:
    """Where an environment says at which level a rule holds: beside its settings, in Pulumi's own form."""
    return settings_file.parent / f"policies.{environment}.json"


def policy_arguments(levels: Path) -> list[str]:
    """Return the arguments of `pulumi preview` and `pulumi policy analyze`."""
    arguments = ["--policy-pack", str(_PACK)]
    return [*arguments, "--policy-pack-config", str(levels)] if levels.exists() else arguments
