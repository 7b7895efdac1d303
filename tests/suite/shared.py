"""What the parts of one run share: quiet while something is timed, and the figures that another part needs.

Parts run beside each other as processes of their own. The driver names a folder that they share in the variable
:data:`VARIABLE`; without it a part runs by itself, and nothing of this has an effect.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

VARIABLE = "MARKETLAKE_TESTS_FOLDER"
_held: list[IO[str]] = []
"""This process's share of the quiet, while a test runs."""


def folder() -> Path | None:
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


@contextmanager
def beside() -> Iterator[None]:
    """Run a test beside those of other parts, but not while one of them is :func:`alone`."""
    place = folder()
    if place is None:
        yield
        return
    _share(place)
    try:
        yield
    finally:
        _held.pop().close()


@contextmanager
def alone() -> Iterator[None]:
    """Time something: wait until no other part runs a test, and let none begin meanwhile.

    Only within :func:`beside`, whose share is given back for that long.
    """
    place = folder()
    if place is None:
        yield
        return
    _held.pop().close()
    try:
        with (place / "gate").open("a") as gate, (place / "tests").open("a") as tests:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(tests, fcntl.LOCK_EX)
            yield
    finally:
        _share(place)


def publish(name: str, figure: float) -> None:
    """Let the other parts of this run know a figure."""
    if place := folder():
        (place / f"{name}.json").write_text(json.dumps(figure))


def published(name: str) -> float | None:
    """The figure that another part published; None if none did."""
    place = folder()
    path = place / f"{name}.json" if place else None
    return float(json.loads(path.read_text())) if path and path.exists() else None


def _share(place: Path) -> None:
    """Take a share of the tests, through the gate: else who wants to be alone would wait for ever."""
    tests = (place / "tests").open("a")
    with (place / "gate").open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
        fcntl.flock(tests, fcntl.LOCK_SH)
    _held.append(tests)
