"""Which Python a program runs with."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pulumi.runtime.proto.language_pb2 import ProgramInfo

from toolchain.language_host.errors import PythonMissingError, UnsupportedOptionError

PYTHON_VARIABLE = "PULUMI_PYTHON_CMD"
VENDOR_ONLY = (
    "this host serves where the vendor's release cannot be reached, and does less: "
    "`marketlake tools install --again pulumi-language-python` brings the vendor's where its site or a mirror answers"
)


@dataclass(frozen=True)
class Interpreter:
    """A Python: the system's, or that of a virtual environment."""

    path: str
    virtualenv: Path | None = None

    def activated(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The variables with which its programs run: as if the virtual environment had been activated."""
        if self.virtualenv is None:
            return dict(variables)
        kept = {name: value for name, value in variables.items() if name != "PYTHONHOME"}
        path = os.pathsep.join(filter(None, [str(self.virtualenv / "bin"), variables.get("PATH")]))
        return {**kept, "VIRTUAL_ENV": str(self.virtualenv), "PATH": path}


def virtualenv_of(info: ProgramInfo) -> Path | None:
    """The folder that the project names as its virtual environment, whether or not it exists.

    Raises:
        UnsupportedOptionError: the project asks for a package manager or a type checker that is not served here.
    """
    options = {name: value.string_value for name, value in info.options.fields.items()}
    toolchain = options.get("toolchain") or "pip"
    if toolchain != "pip":
        raise UnsupportedOptionError(
            f"runtime.options.toolchain is {toolchain!r}; allowed is 'pip', with `virtualenv` naming the environment "
            f"that {toolchain} made: {VENDOR_ONLY}"
        )
    if checker := options.get("typechecker"):
        raise UnsupportedOptionError(
            f"runtime.options.typechecker is {checker!r}; allowed is none, so remove the option and run {checker} "
            f"by itself: {VENDOR_ONLY}"
        )
    named = options.get("virtualenv")
    return Path(info.root_directory, named).resolve() if named else None


def interpreter_of(info: ProgramInfo) -> Interpreter:
    """The Python of the project's virtual environment; if it names none, the first on PATH.

    Raises:
        UnsupportedOptionError: as for :func:`virtualenv_of`.
        PythonMissingError: the virtual environment does not exist or is none, or no Python is on PATH.
    """
    folder = virtualenv_of(info)
    if folder is None:
        return Interpreter(system_python())
    python = folder / "bin" / "python"
    if not python.is_file():
        state = "is no virtual environment" if folder.is_dir() else "does not exist"
        raise PythonMissingError(
            f"runtime.options.virtualenv names {folder}, which {state}: run `pulumi install` in "
            f"{info.root_directory}, or make it with `python3 -m venv {folder}` and install the project's packages"
        )
    return Interpreter(str(python), folder)


def system_python() -> str:
    """The Python that ``PULUMI_PYTHON_CMD`` names, else ``python3`` or ``python`` on PATH.

    Raises:
        PythonMissingError: none of them is on PATH.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    wanted = [named] if named else ["python3", "python"]
    for name in wanted:
        if found := shutil.which(name):
            return found
    raise PythonMissingError(
        f"{' and '.join(wanted)} cannot be found on PATH: install Python, name one in {PYTHON_VARIABLE}, or set "
        "runtime.options.virtualenv"
    )
