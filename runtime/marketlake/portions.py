"""Cut work into portions of bounded size."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def portions(items: Iterable[T], size: Callable[[T], float], most: float) -> Iterator[list[T]]:
    """Yield items, in their order, in portions whose sizes sum up to at most `most`; a larger item is one by itself."""
    portion: list[T] = []
    filled = 0.0
    for item in items:
        more = size(item)
        if portion and filled + more > most:
            yield portion
            portion, filled = [], 0.0
        portion.append(item)
        filled += more
    if portion:
        yield portion
