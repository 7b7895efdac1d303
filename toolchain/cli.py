"""``marketlake tools``: the command line of the toolchain."""

from typing import Annotated

import typer
from rich.console import Console

from toolchain.errors import ToolchainError
from toolchain.installation import Installation

app = typer.Typer(
    help="The pinned tools of the platform: where they come from, and bringing them.", no_args_is_help=True
)


@app.callback()
def _tools() -> None:
    """The pinned tools of the platform."""


@app.command()
def install(
    names: Annotated[
        list[str] | None, typer.Argument(help="Tools to bring; none: all that the platform needs.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Bring them anew even if they are there.")] = False,
) -> None:
    """Bring tools into the cache, each from the first source that works."""
    try:
        Installation().install(names, again=again)
    except ToolchainError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
