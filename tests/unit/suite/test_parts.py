"""Every test belongs to one part."""

from pathlib import Path

from tests.suite.parts import PARTS, UNIT, parts_of

TESTS = Path(__file__).parents[2]


def test_every_folder_with_tests_is_in_one_part() -> None:
    folders = sorted({path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")})
    assert sorted(folder for part in PARTS.values() for folder in part.folders) == folders


def test_chosen_parts_keep_their_order() -> None:
    assert [part.name for part in parts_of(frozenset({"unit", "stack"}))] == ["stack", "unit"]
    assert len(parts_of(frozenset(PARTS))) == len(PARTS)


def test_the_order_of_unit_tests_is_shuffled_by_a_seed_and_that_of_the_stack_is_not() -> None:
    command = UNIT.command(report="unit.xml", seed=7, coverage=True)
    assert "--random-order-seed=7" in command
    assert command[:3] == ("-m", "coverage", "run")
    stack = PARTS["stack"].command(report="stack.xml", seed=7, coverage=False)
    assert stack[:2] == ("-m", "pytest")
    assert not any("random" in option for option in stack)
