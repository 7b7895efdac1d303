"""What users and writers of plug-ins import: the names of `marketlake`, and nothing below it."""

import re
import subprocess
import sys
from pathlib import Path

import marketlake
import pytest

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.py")),
]


@pytest.mark.parametrize("name", marketlake.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(marketlake, name).__name__.rpartition(".")[2] == name


def test_a_name_that_is_not_public_is_said_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = marketlake.nonsense


def test_importing_the_package_imports_none_of_its_libraries() -> None:
    program = "import sys, marketlake; print(sorted({'pydantic', 'polars', 'duckdb'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_and_examples_import_public_names_only(page: Path) -> None:
    inner = re.findall(r"^(?:from|import) (marketlake\.[\w.]+)", page.read_text(), re.MULTILINE)
    assert set(inner) <= {"marketlake.settings"}  # the contract that components build
