import re
from pathlib import Path

import pytest

from tests.breakages.patches import CHECKOUT, Breakage, PatchError, read, read_all

BREAKAGES = read_all()
HEADER = "Promise: nothing is lost.\nRed: tests/test_toy.py\n\n"
DIFF = (
    "diff --git a/toy.py b/toy.py\n--- a/toy.py\n+++ b/toy.py\n@@ -1 +1 @@\n-WHOLE = True\n+WHOLE = False\n"
)


def test_there_are_breakages_of_at_least_thirty_promises() -> None:
    assert len({breakage.promise for breakage in BREAKAGES}) >= 30


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.number)
def test_each_breakage_applies_and_names_a_test_that_exists(breakage: Breakage) -> None:
    breakage.apply(CHECKOUT, check_only=True)
    file, *names = breakage.red.partition("[")[0].split("::")
    assert (CHECKOUT / file).is_file(), file
    # The promises that hold on every target are classes of tests/conformance, which test files inherit.
    sources = [CHECKOUT / file, *(CHECKOUT / "tests" / "conformance").glob("*.py")]
    text = "\n".join(source.read_text() for source in sources)
    for name in names:
        assert re.search(rf"\b(def|class) {name}\b", text), f"{file} has no {name}"


def patch(folder: Path, text: str, name: str = "01-nothing-is-lost.patch") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_breakage_is_a_promise_a_test_and_a_diff(tmp_path: Path) -> None:
    breakage = read(patch(tmp_path, HEADER + DIFF))
    assert (breakage.number, breakage.promise, breakage.red) == (
        "01",
        "nothing is lost.",
        "tests/test_toy.py",
    )


@pytest.mark.parametrize(
    "text",
    [
        DIFF,
        HEADER,
        "Promise: nothing is lost.\n" + DIFF,
        HEADER.replace("tests/", "") + DIFF,
        HEADER.replace("nothing is lost.", "") + DIFF,
    ],
)
def test_a_header_that_is_not_complete_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        PatchError, match=r"01-nothing-is-lost\.patch: it has to begin with the lines 'Promise:"
    ):
        read(patch(tmp_path, text))


@pytest.mark.parametrize("name", ["1-short.patch", "01.patch", "01-Loud.patch", "01-two words.patch"])
def test_a_name_that_is_no_promise_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(PatchError, match=r"has to be NN-the-promise-in-words\.patch"):
        read(patch(tmp_path, HEADER + DIFF, name))


def test_two_of_one_number_are_told(tmp_path: Path) -> None:
    for name in ("07-one.patch", "07-other.patch"):
        patch(tmp_path, HEADER + DIFF, name)
    with pytest.raises(PatchError, match=r"07-one\.patch and 07-other\.patch have the same number"):
        read_all(tmp_path)


def test_a_patch_that_does_not_apply_is_told_and_changes_nothing(tmp_path: Path) -> None:
    breakage = read(patch(tmp_path, HEADER + DIFF))
    (tmp_path / "toy.py").write_text("WHOLE = 'else'\n")
    with pytest.raises(PatchError, match=r"does not apply:\nerror: patch failed: toy\.py:1"):
        breakage.apply(tmp_path)
    assert (tmp_path / "toy.py").read_text() == "WHOLE = 'else'\n"


def test_a_patch_applies_to_a_tree_inside_of_another_repository(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    breakage = read(patch(tmp_path, HEADER + DIFF))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "toy.py").write_text("WHOLE = True\n")
    breakage.apply(tree)
    assert (tree / "toy.py").read_text() == "WHOLE = False\n"
