"""One folder with links to the pinned programs, to be put on PATH."""

import shlex
import tempfile
from pathlib import Path

from toolchain.bom import Bom, load_bom
from toolchain.cache import Cache
from toolchain.platforms import Platform, this_platform

_TOGETHER = "pulumi"
"""The tool that looks for other programs beside its own, where a symbolic link would lead it astray."""


def bin_folder(
    *, bom: Bom | None = None, cache: Cache | None = None, platform: Platform | None = None
) -> Path:
    """The folder with links to the programs of every installed tool that belongs on PATH; brought up to date.

    It is named after a digest of the bill of materials, so that two checkouts with other versions do not
    change each other's.
    """
    bom, cache, platform = bom or load_bom(), cache or Cache.default(), platform or this_platform()
    folder = cache.folder / "bin" / bom.digest
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        program: (path, tool.name == _TOGETHER)
        for tool in bom.tools.values()
        if tool.on_path and (installed := cache.find(tool, platform))
        for program, path in installed.executables.items()
    }
    for program, (path, together) in wanted.items():
        _link(folder / program, path, hard=together)
    for stranger in folder.iterdir():
        if stranger.name not in wanted:
            stranger.unlink()
    return folder


def shell_lines(folder: Path) -> str:
    """Lines for a shell to evaluate that put the folder first on PATH."""
    return f'export PATH={shlex.quote(str(folder))}:"$PATH"\nexport PULUMI_SKIP_UPDATE_CHECK=true'


def _link(link: Path, target: Path, *, hard: bool) -> None:
    if hard and link.exists() and not link.is_symlink() and link.samefile(target):
        return
    if not hard and link.is_symlink() and link.readlink() == target:
        return
    with tempfile.TemporaryDirectory(prefix=".link-", dir=link.parent.parent) as folder:
        fresh = Path(folder) / link.name
        if hard:
            fresh.hardlink_to(target)
        else:
            fresh.symlink_to(target)
        fresh.replace(link)
