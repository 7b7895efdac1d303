"""Brings tools into the cache: each from the first source that works, each whole or not at all."""

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from toolchain.bom import Bom, GoBuild, GoFiles, MavenJars, PythonProgram, Tool, Wheel, load_bom
from toolchain.cache import CACHE_VARIABLE, Cache, InstalledTool
from toolchain.completion import complete
from toolchain.errors import Attempt, DiskSpaceError, InstallError, SourceUnavailableError, ToolchainError
from toolchain.fetch import Fetcher
from toolchain.platforms import Platform, this_platform
from toolchain.progress import Progress, Within, duration, progress_for
from toolchain.sources import Origin, Workshop
from toolchain.sources.ahead import WorkAhead
from toolchain.sources.gomodule import from_go_build, from_go_files
from toolchain.sources.maven import from_maven
from toolchain.sources.mirror import MIRROR_VARIABLE, archive_name, from_mirror, offers
from toolchain.sources.pythonprogram import from_python_program
from toolchain.sources.vendor import from_vendor
from toolchain.sources.wheel import from_wheel

Source = Callable[[Tool, Path, Workshop], Origin]


def from_registry(tool: Tool, staging: Path, workshop: Workshop) -> Origin:
    """Bring a tool from the package registry that its entry names."""
    match tool.registry:
        case Wheel() as wheel:
            return from_wheel(tool, wheel, staging, workshop)
        case PythonProgram() as program:
            return from_python_program(tool, program, staging, workshop)
        case GoBuild() as build:
            return from_go_build(tool, build, staging, workshop)
        case GoFiles() as files:
            return from_go_files(tool, files, staging, workshop)
        case MavenJars() as jars:
            return from_maven(tool, jars, staging, workshop)


SOURCES: Mapping[str, Source] = {"mirror": from_mirror, "vendor": from_vendor, "registry": from_registry}
"""In the order in which they are tried."""


@dataclass(frozen=True)
class _Turn:
    """A tool's turn in a run."""

    position: str
    again: bool
    progress: Progress
    later: Sequence[Tool]
    ahead: WorkAhead


class Installation:
    """One run of the installer."""

    def __init__(
        self,
        *,
        bom: Bom | None = None,
        cache: Cache | None = None,
        platform: Platform | None = None,
        environment: Mapping[str, str] | None = None,
        fetcher: Fetcher | None = None,
        sources: Mapping[str, Source] = SOURCES,
    ) -> None:
        self._bom = bom or load_bom()
        self._cache = cache or Cache.default()
        self._platform = platform or this_platform()
        self._environment = os.environ if environment is None else environment
        self._fetcher = fetcher or Fetcher()
        self._sources = sources

    def install(
        self,
        names: Sequence[str] | None = None,
        *,
        groups: Sequence[str] = (),
        again: bool = False,
        progress: Progress | None = None,
    ) -> list[InstalledTool]:
        """Bring the named tools; None: all that everybody needs, and those of the named groups.

        Args:
            names: of tools in the bill of materials.
            groups: further tools, where none are named.
            again: bring them anew even if they are there.
            progress: None: on standard error, live or in plain lines.

        Raises:
            UnknownToolError: a name or a group that is not listed.
            DiskSpaceError: too little room for what is missing.
            InstallError: a tool could not be had from any source; the others were still tried.
        """
        tools = [self._bom.tool(name) for name in names] if names else self._bom.of_groups(groups)
        if progress is None:
            with progress_for() as shown:
                return self._install_all(tools, again=again, progress=shown)
        return self._install_all(tools, again=again, progress=progress)

    def _install_all(self, tools: list[Tool], *, again: bool, progress: Progress) -> list[InstalledTool]:
        missing = tools if again else [tool for tool in tools if self._current(tool) is None]
        failures: list[ToolchainError] = []
        if missing:
            with self._lock(progress), WorkAhead() as ahead:
                self._clear_staging()
                for position, tool in enumerate(missing, 1):
                    turn = _Turn(f"{position}/{len(missing)}", again, progress, missing[position:], ahead)
                    try:
                        self._bring(tool, turn)
                    except InstallError as error:
                        progress.line(f"✗ {tool.name} {tool.version}: no source worked")
                        failures.append(error)
                if not failures:
                    shutil.rmtree(self._cache.downloads, ignore_errors=True)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ToolchainError("\n\n".join(str(failure) for failure in failures))
        return [found for tool in tools if (found := self._current(tool))]

    def _current(self, tool: Tool) -> InstalledTool | None:
        """The installed tool, unless its recipe has changed since."""
        found = self._cache.find(tool, self._platform)
        if found is None or found.receipt.source_digest != tool.source_digest(found.receipt.source):
            return None
        return found

    def _bring(self, tool: Tool, turn: _Turn) -> InstalledTool:
        if not turn.again and (found := self._current(tool)):
            return found
        began = time.monotonic()
        turn.progress.start(tool.name, turn.position)
        if isinstance(tool.registry, GoBuild):
            turn.ahead.leave(tool.registry)
        attempts: list[Attempt] = []
        workshop = self._workshop(turn)
        for source, acquire in self._sources.items():
            staging = Path(tempfile.mkdtemp(prefix=f"{tool.name}-", dir=self._cache.staging))
            try:
                if source == "registry":
                    self._check_space(tool, turn)
                origin = acquire(tool, staging, workshop)
                installed = complete(tool, source, origin, staging, workshop, began=began)
            except SourceUnavailableError as error:
                attempts.append(Attempt(source, str(error)))
                continue
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise DiskSpaceError(self._full(tool)) from error
                raise
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            turn.progress.line(_line(installed, attempts))
            return installed
        raise InstallError(tool.name, tool.version, tuple(attempts), _remedy(tool, self._platform))

    def _workshop(self, turn: _Turn) -> Workshop:
        return Workshop(
            cache=self._cache,
            platform=self._platform,
            fetcher=self._fetcher,
            mirror=self._environment.get(MIRROR_VARIABLE),
            step=turn.progress.step,
            detail=turn.progress.detail,
            require=lambda name: self._require(name, turn),
            environment=self._environment,
            compiling=lambda environment: turn.ahead.begin(
                [
                    tool.registry
                    for tool in self._surely_from_registry(turn.later)
                    if isinstance(tool.registry, GoBuild)
                ],
                environment,
            ),
        )

    def _require(self, name: str, turn: _Turn) -> InstalledTool:
        try:
            within = replace(turn, again=False, progress=Within(turn.progress, name))
            return self._bring(self._bom.tool(name), within)
        except InstallError as error:
            raise SourceUnavailableError(f"it needs {name}. {error}") from error

    def _surely_from_registry(self, tools: Sequence[Tool]) -> list[Tool]:
        """Those whose other sources are known to give nothing: not in the mirror, and no vendor or one away."""
        mirror = self._environment.get(MIRROR_VARIABLE)
        return [
            tool
            for tool in tools
            if (tool.vendor is None or self._fetcher.is_away(tool.vendor.url))
            and not offers(mirror, tool, self._platform, self._fetcher)
        ]

    def _check_space(self, tool: Tool, turn: _Turn) -> None:
        """Refuse to begin with a registry if what is still to come from registries will not fit."""
        coming = [tool, *self._surely_from_registry(turn.later)]
        needed = sum(each.disk_mb for each in coming)
        free = shutil.disk_usage(self._cache.folder).free / 1e6
        if free < needed:
            tools = ", ".join(each.name for each in coming)
            raise DiskSpaceError(
                f"{self._cache.folder} has {free:.0f} MB free; bringing {tools} from package registries may take "
                f"{needed} MB. Free some, or set {CACHE_VARIABLE} to a folder on another disk."
            )

    def _full(self, tool: Tool) -> str:
        return (
            f"the disk of {self._cache.folder} ran full while {tool.name} was brought (it may take "
            f"{tool.disk_mb} MB). Nothing half-done was left. Free some room, or set {CACHE_VARIABLE} to a "
            "folder on another disk."
        )

    def _clear_staging(self) -> None:
        """Remove what a killed run left; the lock says that no other is at work.

        A compiler that outlived its run may still be writing there: what it adds goes with the next clearing.
        """
        shutil.rmtree(self._cache.staging, ignore_errors=True)
        self._cache.staging.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _lock(self, progress: Progress) -> Iterator[None]:
        """Only one run at a time works on a cache; another waits for it. A killed run's lock ends with it."""
        self._cache.tools.mkdir(parents=True, exist_ok=True)
        with (self._cache.tools / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                progress.line(f"waiting for another installation (process {file.read().strip()}) to end")
                fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def _line(installed: InstalledTool, attempts: list[Attempt]) -> str:
    receipt = installed.receipt
    refused = f"; not from {', '.join(attempt.source for attempt in attempts)}" if attempts else ""
    note = f"\n  note: {receipt.note}" if receipt.note else ""
    source, location = ("mirror", receipt.mirror) if receipt.mirror else (receipt.source, receipt.location)
    return (
        f"✓ {installed.name} {installed.version} from {source} ({location}), "
        f"{duration(receipt.seconds)}{refused}{note}"
    )


def _remedy(tool: Tool, platform: Platform) -> str:
    return (
        f"Give this machine access to the vendor's site or to the package registry, or set {MIRROR_VARIABLE} to a "
        f"mirror that holds {archive_name(tool, platform)}: `marketlake tools mirror` writes one where there is "
        "access."
    )
