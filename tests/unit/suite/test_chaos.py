"""Chaos can be repeated: the same seed kills the same in the same order."""

from tests.conformance.chaos import rounds
from tests.conformance.holdings import SERVICES

IN_THE_MIDDLE = ("workflow-run", "collection-worker", "workflow-worker")


def test_the_same_seed_gives_the_same_rounds_and_more_of_them_begin_alike() -> None:
    assert list(rounds(7, 5, IN_THE_MIDDLE)) == list(rounds(7, 9, IN_THE_MIDDLE))[:5]
    assert list(rounds(7, 5, IN_THE_MIDDLE)) != list(rounds(8, 5, IN_THE_MIDDLE))


def test_the_first_round_kills_all_that_takes_part_in_a_collection() -> None:
    first, *_ = rounds(7, 1, IN_THE_MIDDLE)
    assert tuple(name for name, _ in first.kills) == IN_THE_MIDDLE


def test_many_rounds_kill_every_service_and_each_collects_files_of_its_own() -> None:
    drawn = list(rounds(7, 60, IN_THE_MIDDLE))
    assert {name for each in drawn for name, _ in each.kills} == SERVICES | {"workflow-run"}
    assert len({each.symbol for each in drawn}) == len(drawn)


def test_a_round_is_told_by_what_it_kills() -> None:
    (first,) = rounds(7, 1, ("collection-worker",))
    assert str(first).startswith("1: collection-worker ")
