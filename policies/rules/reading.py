"""Reading properties of which some may be missing, and some not known before an update."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Step = str | int


class _Unknown:
    """A value that only the update will know, or that nobody but the owner of its secret can see."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()
"""Stands for every value that cannot be looked at. Rules neither accept nor refuse it."""
_REDACTED = "[secret]"
"""What Pulumi puts in place of a secret, whatever its type, when it analyses a state without the passphrase."""


def is_known(value: Any) -> bool:
    """Whether a value can be looked at: plain data, which e.g. Pulumi's outputs are not."""
    if isinstance(value, str):
        return value != _REDACTED
    return value is None or isinstance(value, bool | int | float | Mapping | Sequence)


def at(value: Any, *path: Step) -> Any:
    """Return the value under a path of keys and indexes.

    Returns:
        None where there is nothing, UNKNOWN where that, or anything on the way, cannot be looked at.
    """
    for step in path:
        if not is_known(value):
            return UNKNOWN
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(step, int):
            value = value[step] if step < len(value) else None
        else:
            return None
    return value if is_known(value) else UNKNOWN


def items_at(value: Any, *path: Step) -> Iterator[tuple[int, Any]]:
    """The known items of the list under a path, with their indexes; none where there is no list."""
    found = at(value, *path)
    if isinstance(found, Sequence) and not isinstance(found, str):
        yield from ((index, item) for index, item in enumerate(found) if is_known(item))


def pairs_at(value: Any, *path: Step) -> Iterator[tuple[str, Any]]:
    """The known pairs of the mapping under a path; none where there is no mapping."""
    found = at(value, *path)
    if isinstance(found, Mapping):
        yield from ((str(key), item) for key, item in found.items() if is_known(item))


def text_at(value: Any, *path: Step) -> str:
    """The text under a path; empty where there is none."""
    found = at(value, *path)
    return found if isinstance(found, str) else ""


def differs(value: Any, *allowed: Any) -> bool:
    """Whether a value is none of the allowed ones, as far as it can be looked at."""
    return value is not UNKNOWN and value not in allowed


def written(*path: Step) -> str:
    """A path as a person writes it: ``spec.containers[0].image``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
