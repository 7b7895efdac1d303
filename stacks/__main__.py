"""The Pulumi program: `pulumi up` runs this for the selected stack, which is an environment."""

import os
import signal
from types import FrameType

import pulumi
from pulumi.runtime.config import get_config_env

from stacks.composition import Platform
from stacks.validation import InvalidSettingsError, settings_from
from toolchain import ToolMissingError


def main() -> None:
    """Build the platform of the selected stack from its settings."""
    environment = pulumi.get_stack()
    settings = settings_from(get_config_env(), source=f"the configuration of the stack {environment!r}")
    Platform(environment, settings).export()


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(1)


# Pulumi interrupts the program when a resource fails, and has told why: a stack trace would bury that.
signal.signal(signal.SIGINT, _leave)
try:
    main()
except (InvalidSettingsError, ToolMissingError) as error:
    raise pulumi.RunError(str(error)) from None  # the user's to mend: no stack trace
