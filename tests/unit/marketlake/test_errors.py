"""Errors of the runtime have one root and a code each: retrying, exit codes and metrics go by them."""

import ast
from collections import Counter
from pathlib import Path

import marketlake
import pytest
from marketlake.errors import MarketlakeError, is_transient
from marketlake.infrastructure.postgres import DatabaseUnavailableError, SchemaError

SOURCES = sorted(Path(marketlake.__file__).parent.rglob("*.py"))
CLASSES = [
    (node, path)
    for path in SOURCES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
]
ERRORS = [(node, path) for node, path in CLASSES if node.name.endswith("Error")]


def _bases(node: ast.ClassDef) -> set[str]:
    return {base.id for base in node.bases if isinstance(base, ast.Name)}


def test_every_error_of_the_runtime_is_below_the_root() -> None:
    known = {node.name for node, _ in ERRORS}
    strangers = [
        f"{path.name}: {node.name}"
        for node, path in ERRORS
        if node.name != MarketlakeError.__name__ and not _bases(node) <= known
    ]
    assert len(ERRORS) > 30
    assert strangers == []


def test_no_two_errors_share_a_code() -> None:
    codes = Counter(
        statement.value.value
        for node, _ in ERRORS
        for statement in node.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        if [target.id for target in statement.targets if isinstance(target, ast.Name)] == ["code"]
    )
    assert [code for code, count in codes.items() if count > 1] == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [(DatabaseUnavailableError("gone"), True), (SchemaError("newer"), False), (OSError("?"), False)],
)
def test_only_what_says_so_is_transient(error: Exception, expected: bool) -> None:
    assert is_transient(error) is expected
