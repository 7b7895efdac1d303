"""``python -m stacks.cli``: the commands of the Makefile."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from marketlake.settings import SettingsError
from rich.console import Console

from stacks.commands.down import LeftoverError
from stacks.commands.down import down as run_down
from stacks.commands.policy import StackMissingError, check_policies
from stacks.commands.preview import preview as run_preview
from stacks.commands.preview import preview_for_report
from stacks.commands.stack import LockedError, Stack
from stacks.commands.up import refresh as run_refresh
from stacks.commands.up import up as run_up
from stacks.engine.process import InterruptError, ProgramError
from stacks.engine.workspace import PassphraseLostError, Workspace
from stacks.preflight.capacity import CapacityError
from stacks.preflight.cluster import ClusterUnreachableError
from stacks.preflight.rollouts import RolloutError
from stacks.preview.report import report
from stacks.settings.environment import Target
from stacks.settings.policy_reference import POLICIES, policies_reference
from stacks.settings.reference import REFERENCE, write_page, write_reference
from stacks.settings.targets import KubeconfigMissingError
from stacks.settings.validation import InvalidSettingsError
from toolchain import ToolchainError

FAILED, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")

app = typer.Typer(
    help="Bring environments up and down.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Data(StrEnum):
    """What becomes of a destroyed stack's data."""

    DELETE = "delete"
    KEEP = "keep"


Environment = Annotated[
    str,
    typer.Option(
        "--env", help="Name of the environment: its settings are stacks/environments/Pulumi.<env>.yaml."
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config-file", help="Settings to use instead of the environment's own file.")
]


@app.command()
def up(
    env: Environment = "local",
    config_file: ConfigFile = None,
    collect: Annotated[bool, typer.Option(help="Publish and collect the sample files, too.")] = True,
) -> None:
    """Bring an environment up, and collect the sample files."""
    with _exit_codes():
        run_up(_stack(env, config_file), collect=collect)


@app.command()
def preview(env: Environment = "local", config_file: ConfigFile = None) -> None:
    """Show what `up` would change."""
    with _exit_codes():
        run_preview(_stack(env, config_file))


@app.command(name="preview-report")
def preview_report(
    env: Environment = "local",
    config_file: ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="File for the report; it is printed when omitted.")] = None,
    refresh: Annotated[bool, typer.Option(help="Look at what really runs first.")] = False,
) -> None:
    """Write what `up` would change as Markdown; exit code 1 if it could not be done or a policy forbids it."""
    with _exit_codes():
        errors = Console(stderr=True)  # standard output is the report's
        seen = preview_for_report(_stack(env, config_file, console=errors), refresh=refresh)
        if out:
            out.write_text(report(seen))
        else:
            sys.stdout.write(report(seen))
    if not seen.good:
        raise _exit(FAILED, f"{env}: the preview failed or breaks a policy: see the report")


@app.command()
def policy(
    env: Environment = "local",
    config_file: ConfigFile = None,
    state: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A state that `pulumi stack export` wrote."),
    ] = None,
) -> None:
    """Hold the recorded state of an environment to the policies."""
    with _exit_codes():
        try:
            check_policies(_stack(env, config_file), state)
        except ProgramError as error:
            raise _exit(FAILED, f"{error}: what it says is above, and docs/policies.md what to do") from None


@app.command()
def refresh(env: Environment = "local", config_file: ConfigFile = None) -> None:
    """Bring Pulumi's state to what really runs."""
    with _exit_codes():
        run_refresh(_stack(env, config_file))


@app.command()
def down(
    env: Environment = "local",
    config_file: ConfigFile = None,
    data: Annotated[Data, typer.Option(help="What becomes of the data.")] = Data.DELETE,
) -> None:
    """Destroy an environment, and prove that nothing of it is left."""
    with _exit_codes():
        run_down(_stack(env, config_file), keep_data=data is Data.KEEP)


@app.command(name="env")
def exports(env: Environment = "local") -> None:
    """Print shell commands after which plain `pulumi` works here: eval "$(make -s env)"."""
    with _exit_codes():
        errors = Console(stderr=True)  # what is printed is evaluated
        sys.stdout.write(_stack(env, None, console=errors).exports() + "\n")


@app.command()
def validate(
    env: Annotated[
        str | None, typer.Option("--env", help="Name of the environment; every environment when omitted.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """Check settings without touching anything: no tool, server, cluster or passphrase is needed."""
    given = env or config_file
    names = [env or "local"] if given else Workspace.of_user().environments()
    wrong = [name for name in names if not _is_valid(name, config_file)]
    if wrong:
        raise typer.Exit(USAGE)


@app.command()
def groups(env: Environment = "local", config_file: ConfigFile = None) -> None:
    """Print the groups of tools that an environment needs beyond the usual ones, one a line."""
    with _exit_codes():
        settings = _stack(env, config_file).validate()
        if settings.target is Target.KUBERNETES:
            sys.stdout.write("kubernetes\n")


def _is_valid(env: str, config_file: Path | None) -> bool:
    try:
        with _exit_codes():
            stack = _stack(env, config_file)
            stack.validate()
            stack.console.print(
                f"{stack.settings_file} is valid", markup=False, highlight=False, soft_wrap=True
            )
    except typer.Exit:
        return False
    return True


@app.command()
def reference() -> None:
    """Write docs/reference from the settings' schema and the rules, and docs/datasets.md from the data contracts."""
    from stacks.settings.dataset_reference import (
        DATASETS,
        datasets_reference,
    )  # Polars: only this command needs it

    for path, changed in (
        (REFERENCE, write_reference()),
        (POLICIES, write_page(POLICIES, policies_reference())),
        (DATASETS, write_page(DATASETS, datasets_reference())),
    ):
        sys.stdout.write(f"{path}: {'written' if changed else 'up to date'}\n")


def _stack(env: str, config_file: Path | None, *, console: Console | None = None) -> Stack:
    if not _NAME.fullmatch(env):
        raise _exit(
            USAGE, f"{env!r} is not a name of an environment: use lower-case letters, digits and hyphens"
        )
    return Stack(env, Workspace.of_user(), console or Console(), config_file)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn an error into one message and its exit code."""
    try:
        yield
    except InvalidSettingsError as error:
        raise _exit(USAGE, str(error)) from None
    except ClusterUnreachableError as error:
        raise _exit(UNREACHABLE, str(error)) from None
    except (InterruptError, KeyboardInterrupt):
        raise _exit(INTERRUPTED, "interrupted: the same command goes on from here") from None
    except ProgramError as error:
        code = error.code if error.code > 0 else FAILED
        raise _exit(code, f"{error}; what it says is above. The same command goes on from there.") from None
    except (
        KubeconfigMissingError,
        LockedError,
        LeftoverError,
        CapacityError,
        PassphraseLostError,
        RolloutError,
        StackMissingError,
        SettingsError,
        ToolchainError,
    ) as error:
        raise _exit(FAILED, str(error)) from None


def _exit(code: int, message: str) -> typer.Exit:
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(code)


if __name__ == "__main__":
    app()
