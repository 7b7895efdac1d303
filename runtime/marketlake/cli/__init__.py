"""The command `marketlake`."""


def main() -> None:
    """Entry point of the console script."""
    from marketlake.cli.application import app

    app(prog_name="marketlake")
