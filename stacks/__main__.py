"""The Pulumi program: `pulumi up` runs this for the selected stack, which is an environment."""

import os
import signal
from types import FrameType

import pulumi
from pulumi.runtime.config import get_config_env, get_config_secret_keys_env

from stacks.preflight import preflight_of
from stacks.preflight.capacity import CapacityError
from stacks.preflight.cluster import ClusterUnreachableError
from stacks.program.platform import Platform
from stacks.settings.environment import EnvironmentSettings, Target
from stacks.settings.targets import KubeconfigMissingError
from stacks.settings.validation import InvalidSettingsError, require_secrets, settings_from
from toolchain import ToolchainError


def main() -> None:
    """Build the platform of the selected stack from its settings."""
    environment = pulumi.get_stack()
    source = f"the configuration of the stack {environment!r}"
    settings = settings_from(get_config_env(), source=source, encrypted=get_config_secret_keys_env())
    require_secrets(settings, environment, source=source)
    if settings.target is Target.KUBERNETES:
        _check_cluster(environment, settings)
    Platform(environment, settings).export()


def _check_cluster(environment: str, settings: EnvironmentSettings) -> None:
    """Look whether the cluster can take the stack; in a preview, one that cannot be seen is no reason to stop."""
    try:
        warnings = preflight_of(environment, settings).check()
    except ClusterUnreachableError as error:
        if not pulumi.runtime.is_dry_run():
            raise
        warnings = [f"{error} The preview goes on without it"]
    for warning in warnings:
        pulumi.log.warn(warning)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(1)


# Pulumi interrupts the program when a resource fails, and has said why: a stack trace would hide that.
signal.signal(signal.SIGINT, _leave)
try:
    main()
except (
    ClusterUnreachableError,
    InvalidSettingsError,
    KubeconfigMissingError,
    CapacityError,
    ToolchainError,
) as error:
    raise pulumi.RunError(str(error)) from None  # the user's to mend: no stack trace
