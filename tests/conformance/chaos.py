"""Rounds of kills in the middle of collections, drawn from a seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.conformance.holdings import SERVICES

_MOST_KILLS, _LONGEST_PAUSE_S = 4, 3.0


@dataclass(frozen=True, slots=True)
class Round:
    """One collection, and what is killed in the middle of it."""

    number: int
    kills: tuple[tuple[str, float], ...]
    """Services, and the seconds that pass after each."""

    @property
    def symbol(self) -> str:
        """Whose files are collected: no other round's."""
        return f"CHAOS{self.number}USDT"

    def __str__(self) -> str:
        return f"{self.number}: {', '.join(f'{name} {pause:.1f} s' for name, pause in self.kills)}"


def draw(metafunc: pytest.Metafunc, in_the_middle: Sequence[str]) -> None:
    """Give a test that asks for ``chaos`` the rounds that the command line asks for."""
    if "chaos" in metafunc.fixturenames:
        option = metafunc.config.getoption
        chosen = rounds(option("--chaos-seed"), option("--chaos-rounds"), in_the_middle)
        metafunc.parametrize("chaos", list(chosen), ids=str)


def rounds(seed: int, count: int, in_the_middle: Sequence[str]) -> Iterator[Round]:
    """Draw rounds; the first kills all that takes part in a collection, the others whatever there is.

    Args:
        seed: the same seed gives the same rounds.
        count: how many.
        in_the_middle: what takes part in a collection, in the order in which it can be killed.
    """
    drawn = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    everything = [*in_the_middle, *sorted(SERVICES - {*in_the_middle})]
    for number in range(1, count + 1):
        victims: Sequence[str] = in_the_middle
        if number > 1:
            chosen = drawn.sample(everything, drawn.randint(1, _MOST_KILLS))
            victims = sorted(chosen, key=everything.index)
        yield Round(number, tuple((name, drawn.uniform(0, _LONGEST_PAUSE_S)) for name in victims))
