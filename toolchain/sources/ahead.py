"""Builds ahead: later Go builds use the network and processor that an earlier one leaves idle."""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from toolchain.bom import RECIPES, GoBuild
from toolchain.errors import SourceUnavailableError
from toolchain.sources.gomodule import build_command, list_command, supply_embedded


class WorkAhead:
    """Fills the caches of modules and of compiled packages in the background.

    All modules are downloaded first, in the order in which they are needed. Then the builds are compiled from
    the last to the first, with the lowest priority: they use what the build in the foreground leaves idle,
    which is much while it waits for one large package. What fails here is left for the build itself to tell.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._current: GoBuild | None = None
        self._passed: list[GoBuild] = []
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ended = True
            self._stop()
        if self._thread is not None:
            self._thread.join()

    def begin(self, builds: Sequence[GoBuild], environment: Mapping[str, str]) -> None:
        """Start, unless that was done already."""
        if self._thread is None and builds:
            self._thread = threading.Thread(
                target=self._work, args=(builds, environment), name="ahead", daemon=True
            )
            self._thread.start()

    def leave(self, build: GoBuild) -> None:
        """The turn of a build has come: from now on it is the foreground's."""
        with self._lock:
            self._passed.append(build)
            if self._current == build:
                self._stop()

    def _work(self, builds: Sequence[GoBuild], environment: Mapping[str, str]) -> None:
        with suppress(OSError):
            self._work_through(builds, environment)

    def _work_through(self, builds: Sequence[GoBuild], environment: Mapping[str, str]) -> None:
        overlays = []
        for build in builds:
            overlays.append(self._overlay(build, environment))
            self._run(build, list_command(build, overlays[-1]), environment)
        for build, overlay in reversed(list(zip(builds, overlays, strict=True))):
            for program in build.packages:
                compiling = build_command(build, program, os.devnull, overlay)
                self._run(build, ["nice", "-n", "19", *compiling], environment)

    def _overlay(self, build: GoBuild, environment: Mapping[str, str]) -> list[str]:
        try:
            return supply_embedded(build, environment, lambda command: self._run(build, command, environment))
        except (SourceUnavailableError, ValueError):  # ValueError: an empty answer, as it was stopped
            return []

    def _run(self, build: GoBuild, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """Run a command and return its standard output; nothing if it fails or is stopped."""
        with self._lock:
            if self._ended or build in self._passed:
                return ""
            process = self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=RECIPES / build.recipe,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._current = build
        output, _ = process.communicate()
        with self._lock:
            self._process = self._current = None
        return output.decode() if process.returncode == 0 else ""

    def _stop(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
