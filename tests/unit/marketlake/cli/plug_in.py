"""A plug-in as another distribution would bring it."""

import typer

app = typer.Typer(help="Extra commands.")


@app.callback()
def group() -> None:
    """Extra commands."""


@app.command()
def hello() -> None:
    """Say hello."""
    typer.echo("hello from a plug-in")
