"""Exit codes, and how errors are reported: one paragraph on stderr; only a defect shows its stack trace."""

import os
import sys
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import ParamSpec, TypeVar

import typer

from marketlake.errors import MarketlakeError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class ExitCode(IntEnum):
    """What the command's exit code means."""

    COMPLETE = 0
    """All is in, or all is well."""
    INCOMPLETE = 1
    """It ran to its end, and something failed."""
    USAGE = 2
    """The command line or the settings are wrong."""
    UNREACHABLE = 3
    """The platform, or a part that the command needs, does not answer."""
    INTERRUPTED = 130
    """Ended by Ctrl-C."""


class UsageError(MarketlakeError):
    """What was asked for does not exist or does not fit together; the message says what would."""

    code = "usage"


class PlatformUnreachableError(MarketlakeError):
    """A part of the platform that the command needs does not answer."""

    code = "platform-unreachable"


class TaskFailedError(MarketlakeError):
    """The command did its work, and the work failed."""

    code = "task-failed"


def reporting(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Turn what a command raises into a message and an exit code; defects keep their stack trace."""

    @wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:  # `… | head`: the reader has what it wanted
            # what is still buffered goes nowhere, instead of failing once more at the interpreter's end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.COMPLETE) from None
        except Exception as error:
            code = _code_of(error)
            if code is None:
                raise
            say(f"error: {error}")
            raise typer.Exit(code) from None

    return run


def say(text: str) -> None:
    """Print a message on stderr, beside the command's output."""
    typer.echo(text, err=True)


def _code_of(error: Exception) -> ExitCode | None:
    """Return the exit code of an expected error; None for a defect."""
    if isinstance(error, typer.Exit | typer.Abort):
        return None
    from marketlake.domain.venue import SelectionError
    from marketlake.infrastructure.bus.connection import EventBusRefusedError, EventBusUnavailableError
    from marketlake.infrastructure.postgres import DatabaseUnavailableError, SchemaError
    from marketlake.infrastructure.storage.errors import StorageError, StorageFullError
    from marketlake.settings import SettingsError

    meanings: tuple[tuple[tuple[type[Exception], ...], ExitCode], ...] = (
        ((UsageError, SelectionError, SettingsError, SchemaError), ExitCode.USAGE),
        ((PlatformUnreachableError, DatabaseUnavailableError), ExitCode.UNREACHABLE),
        ((EventBusUnavailableError, EventBusRefusedError), ExitCode.UNREACHABLE),
        ((StorageError, StorageFullError), ExitCode.UNREACHABLE),
        ((MarketlakeError,), ExitCode.INCOMPLETE),
    )
    return next((code for kinds, code in meanings if isinstance(error, kinds)), None)
