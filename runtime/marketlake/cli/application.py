"""The command's tree. What a command needs is imported when it runs, so that `--help` costs nothing."""

from datetime import datetime
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from marketlake.cli.exit_codes import reporting
from marketlake.domain.archive import Frequency

PLUG_INS = "marketlake.commands"
"""Entry point group under which other distributions add commands, each a typer application."""


class PluggableGroup(TyperGroup):
    """The root group: its own commands, and those of installed plug-ins, which are loaded when asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Own commands first."""
        own = super().list_commands(ctx)
        return own + sorted(name for name in _plug_ins() if name not in own)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by name."""
        own = super().get_command(ctx, cmd_name)
        point = _plug_ins().get(cmd_name)
        if own is not None or point is None:
            return own
        command = typer.main.get_command(point.load())
        command.name = cmd_name
        return command


def _plug_ins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=PLUG_INS)}


app = typer.Typer(
    cls=PluggableGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time that --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Collect exchange archives into a lake, and query it.",
)
venue_app = typer.Typer(no_args_is_help=True, help="The stand-in venue of a local stack.")
archive_app = typer.Typer(no_args_is_help=True, help="What venues publish, as far as the catalogue knows.")
lake_app = typer.Typer(no_args_is_help=True, help="Compare the lake with the ledger, and rebuild it.")
app.add_typer(venue_app, name="venue")
app.add_typer(archive_app, name="archive")
app.add_typer(lake_app, name="lake")

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")
]
VenueOption = Annotated[str, typer.Option("--venue", help="Name of the venue plug-in.")]
MarketOption = Annotated[str | None, typer.Option("--market", help="For example spot, um, cm or option.")]
TypeOption = Annotated[
    str | None,
    typer.Option("--type", help="Data type as the venue writes it (klines), or its neutral id (candles)."),
]
IntervalOption = Annotated[str | None, typer.Option("--interval", help="Length of a bar: 1m, 1h, …")]
SymbolOption = Annotated[list[str] | None, typer.Option("--symbol", help="May be given several times.")]
FrequencyOption = Annotated[
    Frequency | None, typer.Option("--frequency", help="Only daily, or only monthly files.")
]
FromOption = Annotated[
    datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First UTC day, inclusive.")
]
ToOption = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last UTC day, inclusive.")
]


@app.callback()
def root(
    ctx: typer.Context,
    env: Annotated[
        str | None,
        typer.Option("--env", envvar="MARKETLAKE_ENV", help="The environment (stack); `local` by default."),
    ] = None,
) -> None:
    """Remember the environment for the command."""
    ctx.obj = env


@app.command()
@reporting
def status(ctx: typer.Context, *, json: JsonOption = False) -> None:
    """Show every service: health, address, version, memory."""
    from marketlake.cli import status as command

    raise typer.Exit(command.run(ctx.obj, as_json=json))


@app.command()
@reporting
def collect(
    ctx: typer.Context,
    *,
    venue: VenueOption,
    market: MarketOption = None,
    data_type: TypeOption = None,
    interval: IntervalOption = None,
    symbol: SymbolOption = None,
    frequency: FrequencyOption = None,
    start: FromOption = None,
    end: ToOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Needed when neither --market nor --type narrows it down.")
    ] = False,
    venue_endpoint: Annotated[
        str | None,
        typer.Option(
            "--venue-endpoint",
            help="Read the venue here instead: URL of the S3 service, with /BUCKET behind it if the bucket "
            "is not the venue's usual one.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Collect a venue's files: discover, copy with proof, refine. Files that are collected are not copied again."""
    from marketlake.cli import collect as command
    from marketlake.cli.selection import SelectionOptions

    options = SelectionOptions(venue, market, data_type, interval, symbol or [], frequency, start, end)
    raise typer.Exit(
        command.run(ctx.obj, options, everything=everything, venue_endpoint=venue_endpoint, as_json=json)
    )


@app.command()
@reporting
def sql(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(help="For example: select count(*) from silver.candles")],
    rows: Annotated[int, typer.Option("--rows", min=1, help="Show at most so many rows as a table.")] = 200,
    *,
    json: JsonOption = False,
) -> None:
    """Query the lake's tables: silver.*, bronze.*, gaps, quarantine, catalogue."""
    from marketlake.cli import sql as command

    raise typer.Exit(command.run(ctx.obj, query, most_rows=rows, as_json=json))


@app.command()
@reporting
def worker(ctx: typer.Context) -> None:
    """Work on collection tasks until SIGTERM; the platform starts these itself."""
    from marketlake.cli import worker as command

    raise typer.Exit(command.run(ctx.obj))


@app.command("pod-logs", hidden=True)
@reporting
def pod_logs(
    namespace: Annotated[str, typer.Option("--namespace", help="The stack's namespace.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where the files go: one for each service.")],
) -> None:
    """Write the logs of a namespace's pods to files; a stack on Kubernetes starts this itself."""
    from marketlake.cli import pod_logs as command

    raise typer.Exit(command.run(namespace, folder))


@venue_app.command()
@reporting
def publish(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that holds an archive tree: DIR/data/spot/daily/…")
    ],
    *,
    venue: VenueOption = "binance",
    json: JsonOption = False,
) -> None:
    """Put an archive tree that lies on disk into the stand-in venue; equal files stay as they are."""
    from marketlake.cli import publish as command

    raise typer.Exit(command.run(ctx.obj, folder, venue, as_json=json))


@archive_app.command("list")
@reporting
def list_archive(
    ctx: typer.Context,
    *,
    venue: VenueOption,
    market: MarketOption = None,
    data_type: TypeOption = None,
    interval: IntervalOption = None,
    symbol: SymbolOption = None,
    frequency: FrequencyOption = None,
    start: FromOption = None,
    end: ToOption = None,
    files: Annotated[bool, typer.Option("--files", help="List every file, not only the series.")] = False,
    json: JsonOption = False,
) -> None:
    """List what the catalogue knows: files, sizes, days, gaps, collected or not."""
    from marketlake.cli import archive as command
    from marketlake.cli.selection import SelectionOptions

    options = SelectionOptions(venue, market, data_type, interval, symbol or [], frequency, start, end)
    raise typer.Exit(command.run(ctx.obj, options, files=files, as_json=json))


YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@lake_app.command("verify")
@reporting
def verify_lake(ctx: typer.Context, *, json: JsonOption = False) -> None:
    """Compare the ledger, landing and bronze, and tell what differs; nothing is changed."""
    from marketlake.cli import lake as command

    raise typer.Exit(command.verified(ctx.obj, as_json=json))


@lake_app.command("maintain")
@reporting
def maintain_lake(
    ctx: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what is due.")] = False,
    json: JsonOption = False,
) -> None:
    """Merge small data files, checkpoint, and delete what no table names any more; workers do it by themselves, too."""
    from marketlake.cli import lake as command

    raise typer.Exit(command.maintained(ctx.obj, dry_run=dry_run, as_json=json))


@lake_app.command("rebuild")
@reporting
def rebuild_lake(
    ctx: typer.Context,
    *,
    venue: Annotated[
        str | None, typer.Option("--venue", help="Only files of this venue; without it, the whole lake.")
    ] = None,
    market: MarketOption = None,
    data_type: TypeOption = None,
    interval: IntervalOption = None,
    symbol: SymbolOption = None,
    frequency: FrequencyOption = None,
    start: FromOption = None,
    end: ToOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Take files that were collected over from landing again. Without --venue, all tables are deleted first."""
    from marketlake.cli import lake as command
    from marketlake.cli.exit_codes import UsageError
    from marketlake.cli.selection import SelectionOptions

    chosen = (market, data_type, interval, symbol, frequency, start, end)
    if venue is None and any(chosen):
        raise UsageError("a selection needs --venue; without any, the whole lake is made anew.")
    options = (
        SelectionOptions(venue, market, data_type, interval, symbol or [], frequency, start, end)
        if venue
        else None
    )
    raise typer.Exit(command.rebuilt(ctx.obj, options, agreed=yes, as_json=json))


@lake_app.command("accept-landing")
@reporting
def accept_landing(ctx: typer.Context, *, yes: YesOption = False) -> None:
    """Take note that landing is another one than the ledger speaks of; the lake stays as it is."""
    from marketlake.cli import lake as command

    raise typer.Exit(command.accepted(ctx.obj, agreed=yes))
