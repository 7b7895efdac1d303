"""Tools that are programs of this project in Python, with the wheels that they import in the tool's own folder.

Such a tool depends on no checkout and no virtual environment, which may be removed or laid anew at any time.
"""

import compileall
import shlex
import shutil
import sys
from pathlib import Path

from toolchain.bom import PROGRAMS, PythonProgram, Tool
from toolchain.sources import Origin, Workshop
from toolchain.sources.wheel import unpack_wheels

LAUNCHER = """#!/bin/sh
# Starts {program} of marketlake with the Python that its libraries are compiled for.
self=$(readlink -f "$0")
named={python}
for python in "$named" python{version}; do
    if command -v "$python" >/dev/null; then
        exec "$python" -I -S "${{self%/bin/*}}/lib" "$@"
    fi
done
echo "{program} needs Python {version}, and there is neither $named nor a python{version} on PATH;" \\
    "\\`marketlake tools install --again {tool}\\` brings it for another Python" >&2
exit 1
"""


def from_python_program(tool: Tool, program: PythonProgram, staging: Path, workshop: Workshop) -> Origin:
    """Lay a program, the wheels that it imports, and what starts it.

    Raises:
        SourceUnavailableError: the wheels cannot be had.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    unpacked, library = staging / ".wheels", staging / "lib"
    pinned = unpack_wheels(tool, program.requirements, unpacked, workshop, python=version)
    for path in [path for pattern in program.keep for path in unpacked.glob(pattern)]:
        target = library / path.relative_to(unpacked)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(unpacked)
    sources = PROGRAMS / program.package
    shutil.copytree(
        sources, library / PROGRAMS.name / program.package, ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copyfile(sources / "__main__.py", library / "__main__.py")
    place = workshop.cache.place(tool, workshop.platform)
    compileall.compile_dir(library, quiet=2, stripdir=str(staging), prependdir=str(place))
    (staging / "bin").mkdir()
    for name in tool.executables:
        (staging / "bin" / name).write_text(
            LAUNCHER.format(
                program=name,
                python=shlex.quote(str(Path(sys.executable).resolve())),
                version=version,
                tool=tool.name,
            )
        )
    return Origin(
        f"{PROGRAMS.name}/{program.package} of this project, with {', '.join(pinned)} for Python {version}",
        f"hashes of {program.requirements}",
        "every wheel against the hashes in the bill of materials",
        program.version,
        program.note,
    )
