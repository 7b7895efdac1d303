"""Programs of this project, laid with the wheels that they import, start by themselves wherever they lie."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.toolchain.conftest import sample_bom, sha256
from tests.unit.toolchain.test_wheel import make_wheel
from toolchain.bom import PythonProgram
from toolchain.errors import CommandFailedError
from toolchain.sources import Workshop, pythonprogram
from toolchain.sources.pythonprogram import from_python_program

PROGRAM = PythonProgram("greeter", "sample.txt", keep=("sample_tool", "*.dist-info"), note="a small one")
TOOL = sample_bom().tool("sample")
MAIN = """
import sys
from sample_tool import unneeded
from toolchain.greeter.words import HELLO

if __name__ == "__main__":
    print(HELLO, sys.argv[1:], unneeded.__file__)
"""


@pytest.fixture
def index(tmp_path: Path, recipes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the package index, and one with a program in the place of ours."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"FIND_LINKS": str(folder), "NO_INDEX": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
        monkeypatch.setenv(f"UV_{name}", value)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    digest = sha256(make_wheel(folder).read_bytes())
    (recipes / "wheels/sample.txt").write_text(f"sample-tool==1.2 --hash=sha256:{digest}\n")
    program = tmp_path / "toolchain" / "greeter"
    program.mkdir(parents=True)
    (program / "__main__.py").write_text(MAIN)
    (program / "words.py").write_text("HELLO = 'hello'\n")
    (program / "__init__.py").touch()
    monkeypatch.setattr(pythonprogram, "PROGRAMS", program.parent)
    return folder


@pytest.fixture
def laid(index: Path, staging: Path, workshop: Workshop) -> Path:
    """The tool's folder, with its program made executable as the installer does."""
    origin = from_python_program(TOOL, PROGRAM, staging, workshop)
    assert origin.location.startswith(
        "toolchain/greeter of this project, with sample-tool==1.2 for Python 3."
    )
    assert origin.note == "a small one"
    (staging / "bin" / "sample").chmod(0o755)
    return staging


def test_it_starts_by_a_link_from_another_place_whatever_the_environment(laid: Path, tmp_path: Path) -> None:
    moved = tmp_path / "another place"
    laid.rename(moved)
    (tmp_path / "linked").symlink_to(moved / "bin" / "sample")
    said = subprocess.run(
        [tmp_path / "linked", "a b"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"hello ['a b'] {moved}/lib/sample_tool/unneeded.py\n"


def test_its_modules_are_compiled_already(laid: Path) -> None:
    assert list((laid / "lib/toolchain/greeter/__pycache__").glob("words.*.pyc"))
    assert not (laid / ".wheels").exists()


def test_without_its_python_another_of_the_version_on_path_is_taken(laid: Path, tmp_path: Path) -> None:
    launcher = laid / "bin" / "sample"
    launcher.write_text(launcher.read_text().replace(str(Path(sys.executable).resolve()), "/gone/python"))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "readlink").symlink_to(str(shutil.which("readlink")))
    alone = {"PATH": str(tmp_path / "path")}
    missing = subprocess.run([launcher], env=alone, capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert missing.stderr == (
        f"sample needs Python {version.removeprefix('python')}, and there is neither /gone/python nor a {version} on "
        "PATH; `marketlake tools install --again sample` brings it for another Python\n"
    )
    (tmp_path / "path" / version).symlink_to(Path(sys.executable).resolve())
    found = subprocess.run([launcher], env=alone, capture_output=True, text=True, check=True)
    assert found.stdout.startswith("hello [] ")


def test_wheels_with_another_hash_are_refused(
    index: Path, recipes: Path, staging: Path, workshop: Workshop
) -> None:
    (recipes / "wheels/sample.txt").write_text(f"sample-tool==1.2 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(CommandFailedError):
        from_python_program(TOOL, PROGRAM, staging, workshop)
