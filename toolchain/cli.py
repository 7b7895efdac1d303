"""``marketlake tools``: the command line of the toolchain."""

import json
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from toolchain.bom import Tool, load_bom
from toolchain.cache import Cache, InstalledTool, locate
from toolchain.errors import ToolchainError
from toolchain.links import bin_folder, shell_lines
from toolchain.platforms import this_platform
from toolchain.progress import duration, progress_for

if TYPE_CHECKING:
    from toolchain.mirroring import MirrorReport

app = typer.Typer(
    help="The pinned tools of the platform: bring them, and see where each came from.", no_args_is_help=True
)


@app.command()
def install(
    names: Annotated[
        list[str] | None, typer.Argument(help="Tools to bring; none: all that the platform needs.")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="Bring the tools of this group, too; may be given several times."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Bring them anew even if they are there.")] = False,
) -> None:
    """Bring tools into the cache, each from the first source that works."""
    from toolchain.installation import Installation

    with exit_on_error(), terminable():
        tools = Installation().install(names, groups=group or (), again=again)
        bin_folder()
        Console(stderr=True).print(
            "1 tool is there." if len(tools) == 1 else f"{len(tools)} tools are there.", highlight=False
        )


@app.command()
def mirror(
    folder: Annotated[Path, typer.Argument(help="Where to; is made, or brought up to date.")],
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group", help="The tools of this group, too, and its images; may be given several times."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the mirror holds as JSON.")] = False,
) -> None:
    """Write a mirror of everything that `make up` installs, for places where no registry answers.

    It serves machines of this one's platform and Python. Run it again, here or on other machines, to add what is
    missing: of another version, platform or Python. There, MARKETLAKE_TOOL_MIRROR names the folder.
    """
    from toolchain.mirroring import write_mirror

    with exit_on_error(), terminable():
        with progress_for() as progress:
            report = write_mirror(folder, groups=group or (), progress=progress)
        if as_json:
            print(json.dumps(asdict(report), indent=1))
        else:
            Console().print(_holds(report), markup=False, highlight=False, soft_wrap=True)


@app.command("list")
def list_tools(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every tool: version, licence, whether it is installed, and from where."""
    with exit_on_error():
        cache, platform = Cache.default(), this_platform()
        rows = [_row(tool, cache.find(tool, platform)) for tool in load_bom().tools.values()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    console = Console()
    for row in rows:
        for line in _lines(row):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def path(
    name: Annotated[str, typer.Argument(help="Of a tool.")],
    program: Annotated[str | None, typer.Argument(help="One of its programs; none: its folder.")] = None,
) -> None:
    """Print where a tool, or one of its programs, lies."""
    with exit_on_error():
        tool = locate(name)
        if program is not None and program not in tool.executables:
            programs = ", ".join(tool.executables) or "none"
            raise ToolchainError(f"{name} has no program {program!r}; it has: {programs}")
        print(tool.executables[program] if program else tool.root)


@app.command()
def env() -> None:
    """Print the lines that put the pinned tools on PATH: eval "$(marketlake tools env)"."""
    with exit_on_error():
        print(shell_lines(bin_folder()))


@app.command()
def sbom() -> None:
    """Print the software bill of materials as CycloneDX JSON."""
    from toolchain.sbom import software_bill

    with exit_on_error():
        print(json.dumps(software_bill(load_bom(), Cache.default(), this_platform()), indent=1))


def _holds(report: "MirrorReport") -> str:
    images = f"{len(report.images)} images" if report.images else "no images"
    return (
        f"{report.folder} holds {len(report.tools)} tools and {images} for {report.platform}, and {report.wheels} "
        f"wheels for {report.python}: {report.bytes / 1e6:.0f} MB in all, {report.written} files are new.\n"
        f"Where no registry answers: MARKETLAKE_TOOL_MIRROR={shlex.quote(report.folder)} make up"
    )


def _lines(row: dict[str, Any]) -> list[str]:
    """A tool as a person reads it: what and from where; which exactly and how proven; what to know."""
    receipt = row["receipt"]
    if receipt is None:
        return [f"{row['name']} {row['version']}: {row['state']} ({row['licence']})"]
    outdated = "" if row["state"] == "installed" else f"; {row['state']}"
    lines = [
        f"{row['name']} {receipt['version']} from {receipt['source']} ({row['licence']}){outdated}",
        f"    {receipt['location']}",
        f"    proven {receipt['verified']}; took {duration(receipt['seconds'])}",
    ]
    if receipt["mirror"]:
        lines.append(f"    copied from {receipt['mirror']}")
    return [*lines, f"    note: {receipt['note']}"] if receipt["note"] else lines


def _row(tool: Tool, installed: InstalledTool | None) -> dict[str, Any]:
    if installed is None:
        state = "only brought when a build needs it" if tool.build_only else "not installed"
        state += f"; belongs to the group {tool.group}" if tool.group else ""
    elif installed.receipt.source_digest != tool.source_digest(installed.receipt.source):
        state = "outdated: its recipe has changed"
    else:
        state = "installed"
    return {
        "name": tool.name,
        "version": tool.version,
        "licence": tool.licence,
        "homepage": tool.homepage,
        "purpose": tool.purpose,
        "state": state,
        "root": str(installed.root) if installed else None,
        "executables": {name: str(place) for name, place in installed.executables.items()}
        if installed
        else {},
        "vendor_verification": tool.vendor.verification if tool.vendor else None,
        "receipt": asdict(installed.receipt) if installed else None,
    }


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn an error into a message and exit code 1, without a stack trace."""
    try:
        yield
    except ToolchainError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end an installation as Ctrl-C does: its children are killed, unfinished files removed."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
