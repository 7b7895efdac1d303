"""Waiting for what happens elsewhere."""

import time
from collections.abc import Callable


def eventually(
    condition: Callable[[], object], *, within_s: float = 25.0, telling: Callable[[], object] | None = None
) -> None:
    """Wait until the condition holds; fail when it does not in time, with what `telling` then says."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() >= deadline:
            told = f": {telling()}" if telling else ""
            raise AssertionError(f"did not happen within {within_s:g} s{told}")
        time.sleep(0.05)
