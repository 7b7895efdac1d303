"""What the two projects import is what they declare: nothing comes by way of another library."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


ROOT = Path(__file__).parents[3]
PLATFORM = ("stacks", "components", "policies", "playbooks", "toolchain")
OWN = {*PLATFORM, "marketlake"}
GIVERS = {module: {normal(name) for name in names} for module, names in packages_distributions().items()}


def declared(project: Path) -> set[str]:
    requirements = tomllib.loads(project.read_text())["project"]["dependencies"]
    return {normal(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in requirements}


def imported(folder: Path) -> set[str]:
    """The names of all modules of others that the modules in a folder import."""
    names: set[str] = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    tops = {name.partition(".")[0] for name in names}
    return tops - OWN - sys.stdlib_module_names


@pytest.mark.parametrize(
    ("project", "folders"),
    [("pyproject.toml", PLATFORM), ("runtime/pyproject.toml", ("runtime/marketlake",))],
)
def test_every_import_is_declared(project: str, folders: tuple[str, ...]) -> None:
    known = declared(ROOT / project)
    undeclared = {
        module: sorted(GIVERS.get(module, ()))
        for folder in folders
        for module in imported(ROOT / folder)
        if not known & GIVERS.get(module, set())
    }
    assert undeclared == {}
