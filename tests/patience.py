"""Waiting for what happens elsewhere."""

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], *, within_s: float = 25.0) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {within_s:g} s"
        time.sleep(0.05)
