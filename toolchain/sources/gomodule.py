"""Tools compiled from Go modules, proven by the go.sum that is committed beside each recipe."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from toolchain.bom import RECIPES, GoBuild, GoFiles, Tool
from toolchain.checksums import file_digest
from toolchain.commands import run
from toolchain.errors import SourceUnavailableError
from toolchain.sources import Origin, Workshop
from toolchain.sources.embedded import Execute, overlay_flags

_NO_DEBUG_INFORMATION = "-gcflags=all=-dwarf=false"
"""The linker drops it anyway (-s -w); not to make it saves the compiler a tenth of its time."""
_DOWNLOADING = re.compile(r"go: downloading (\S+) (\S+)")


def go_environment(workshop: Workshop) -> dict[str, str]:
    """Settings of every Go build: the pinned compiler, our caches, no C, nothing trusted but go.sum.

    The user's own GOPROXY, GOPRIVATE, GONOSUMDB and the like hold.
    """
    go = workshop.require("go")
    return {
        "PATH": f"{go.root / 'bin'}:{workshop.environment.get('PATH', '')}",
        "GOROOT": str(go.root),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
        "GOEXPERIMENT": "",
        "CGO_ENABLED": "0",
        "GOOS": workshop.platform.system,
        "GOARCH": workshop.platform.architecture,
        "GOGC": "400",  # the compiler collects garbage less often: 10 % less time for more memory
        "GOPATH": str(workshop.cache.go),
        "GOMODCACHE": str(workshop.cache.go / "mod"),
        "GOCACHE": str(workshop.cache.go / "build"),
    }


def supply_embedded(build: GoBuild, environment: Mapping[str, str], execute: Execute) -> list[str]:
    """Supply the files of modules that a build embeds; returns the flags by which Go finds them.

    Raises:
        SourceUnavailableError: a module cannot be downloaded, or does not hold the file.
    """
    folder = Path(environment["GOPATH"]) / "embedded" / build.recipe
    return overlay_flags(RECIPES / build.recipe, folder, execute)


def list_command(build: GoBuild, overlay: Sequence[str]) -> list[str]:
    """Lists every package of a build, for which it downloads their modules."""
    return ["go", "list", *overlay, "-deps", "-tags", build.tags, *build.packages.values()]


def build_command(build: GoBuild, program: str, output: str, overlay: Sequence[str]) -> list[str]:
    """Compiles one program; ``-v`` names each package when it begins to compile it."""
    flags = ["-trimpath", "-buildvcs=false", _NO_DEBUG_INFORMATION, "-tags", build.tags]
    flags += ["-ldflags", f"-s -w {build.ldflags}".strip(), *overlay]
    return ["go", "build", "-v", *flags, "-o", output, build.packages[program]]


def from_go_build(tool: Tool, build: GoBuild, staging: Path, workshop: Workshop) -> Origin:
    """Compile a tool's programs.

    Raises:
        SourceUnavailableError: Go cannot be had, the module proxy does not answer, a sum is wrong, or a
            package does not compile.
    """
    env = go_environment(workshop)
    recipe = RECIPES / build.recipe
    log = workshop.log(tool.name)
    workshop.step(f"downloading the modules of {tool.name}")

    def download(command: Sequence[str]) -> str:
        return run(command, env=env, cwd=recipe, log=log, on_line=_downloads(workshop))

    overlay = supply_embedded(build, env, download)
    listed = download(list_command(build, overlay))
    workshop.compiling(env)
    (staging / "bin").mkdir()
    for program in build.packages:
        workshop.step(f"compiling {program}")
        command = build_command(build, program, str(staging / "bin" / program), overlay)
        run(command, env=env, cwd=recipe, log=log, on_line=_packages(workshop, len(listed.split())))
    return Origin(
        f"Go packages {', '.join(build.packages.values())} of recipes/{build.recipe}",
        f"go.sum {file_digest(recipe / 'go.sum')}",
        "every module against the committed go.sum",
        build.version,
        build.note,
    )


def from_go_files(tool: Tool, files: GoFiles, staging: Path, workshop: Workshop) -> Origin:
    """Copy a tool's files out of a module.

    Raises:
        SourceUnavailableError: as for :func:`from_go_build`.
    """
    workshop.step(f"downloading the module {files.module}")
    said = run(
        ["go", "mod", "download", "-json", files.module],
        env=go_environment(workshop),
        cwd=RECIPES / files.recipe,
        log=workshop.log(tool.name),
        on_line=_downloads(workshop),
    )
    module = json.loads(said)
    for member, target in files.layout.pick.items():
        (staging / target).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(Path(module["Dir"]) / member, staging / target)
        except OSError as error:
            raise SourceUnavailableError(f"{files.module} holds no {member}: {error.strerror}") from error
    return Origin(
        f"Go module {files.module}@{module['Version']}",
        module["Sum"],
        "against the committed go.sum",
        files.version,
    )


def _downloads(workshop: Workshop) -> Callable[[str], None]:
    count = 0

    def tell(line: str) -> None:
        nonlocal count
        if match := _DOWNLOADING.match(line):
            count += 1
            workshop.detail(f"{count}: {match[1]}")

    return tell


def _packages(workshop: Workshop, total: int) -> Callable[[str], None]:
    count = 0

    def tell(line: str) -> None:
        nonlocal count
        if line and " " not in line:
            count += 1
            workshop.detail(f"package {count} of at most {total}: {line}")

    return tell
