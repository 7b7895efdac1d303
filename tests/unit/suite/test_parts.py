"""Every test belongs to one part."""

from pathlib import Path

from tests.suite.parts import LANES, ON_REQUEST, PARTS, UNIT, lanes_of

TESTS = Path(__file__).parents[2]


def test_every_folder_with_tests_is_in_one_part_and_every_part_in_one_lane() -> None:
    folders = sorted({path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")})
    assert sorted([*ON_REQUEST, *(folder for part in PARTS.values() for folder in part.folders)]) == folders
    assert sorted(part.name for lane in LANES for part in lane) == sorted(PARTS)


def test_lanes_are_cut_down_to_the_chosen_parts() -> None:
    assert [[part.name for part in lane] for lane in lanes_of(frozenset({"unit"}))] == [["unit"]]
    assert len(lanes_of(frozenset(PARTS))) == len(LANES)


def test_the_order_of_unit_tests_is_shuffled_by_a_seed_and_that_of_the_stack_is_not() -> None:
    command = UNIT.command(report="unit.xml", seed=7, coverage=True)
    assert "--random-order-seed=7" in command
    assert command[:3] == ("-m", "coverage", "run")
    stack = PARTS["stack"].command(report="stack.xml", seed=7, coverage=False)
    assert stack[:2] == ("-m", "pytest")
    assert not any("random" in option for option in stack)
