"""What a `pulumi preview --json` says would change, put into words that hold no secret.

The document's shape is Pulumi's `display.PreviewDigest` (pkg/display/json.go of 3.250). Pulumi masks what it knows to
be secret; values under names that say so, and passwords inside texts, are masked here as well.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from marketlake.infrastructure.telemetry.redaction import Redaction

from policies.rules.secrecy import names_secret

SECRET = "[secret]"  # noqa: S105 - what stands in place of one
LATER = "(known after the update)"
_STACK = "pulumi:pulumi:Stack"
_SECRET_OBJECT = "kubernetes:core/v1:Secret"  # noqa: S105 - a type
_UNKNOWN = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
"""How Pulumi writes values that it does not know yet (sdk/go/common/resource/plugin/rpc.go)."""
_HIDDEN = frozenset({"__provider", "__inputs", "__fieldManager", "__initialApiVersion"})
_CHECKSUM = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{24,}\b")
_LONGEST_VALUE, _LONGEST_PATH = 80, 120
_STEP = re.compile(r"\[\"((?:[^\"\\]|\\.)*)\"\]|\[(\d+)\]|\.?([^.\[\]]+)")
_redacted = Redaction()

Step = str | int
Path = tuple[Step, ...]


class Kind(StrEnum):
    """What would become of a resource; in the order in which it matters to a reader."""

    REPLACE = "replace"
    DELETE = "delete"
    DRIFT = "drift"
    """It was changed behind Pulumi's back."""
    UPDATE = "update"
    CREATE = "create"


_KINDS: Mapping[str, Kind] = {
    "replace": Kind.REPLACE,
    "create-replacement": Kind.REPLACE,
    "delete-replaced": Kind.REPLACE,
    "delete": Kind.DELETE,
    "update": Kind.UPDATE,
    "create": Kind.CREATE,
    "import": Kind.CREATE,
    "import-replacement": Kind.REPLACE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One property that would change; values are ready to be shown, None where there is none."""

    path: str
    old: str | None
    new: str | None
    replaces: bool = False
    """It is why the resource would be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What would become of one resource."""

    kind: Kind
    urn: str
    type: str
    name: str
    component: str
    """Name of what it is a part of; empty for the stack itself."""
    old: Mapping[str, Any]
    """Recorded inputs, as they are: not to be shown."""
    differences: tuple[Difference, ...] = ()

    @property
    def short_type(self) -> str:
        """The type as people call it: ``StatefulSet``."""
        return self.type.rpartition(":")[2]


def changes_of(preview: Mapping[str, Any], *, refreshed: bool = False) -> list[Change]:
    """The changes of a preview, one per resource and kind, in a stable order.

    What stays the same is not among them: Pulumi leaves most of those steps out (see :func:`unchanged_in`).

    Args:
        preview: the parsed document.
        refreshed: the preview looked at the world first (``--refresh``), so each resource's first step says what was
            found, and its second what would be done.
    """
    looked: set[str] = set()
    found: dict[tuple[str, Kind], Change] = {}
    for step in preview.get("steps") or ():
        kind = _KINDS.get(step["op"])
        if refreshed and step["urn"] not in looked:
            looked.add(step["urn"])
            if kind in (Kind.UPDATE, Kind.DELETE):
                kind = Kind.DRIFT
            elif step["op"] == "refresh":
                kind = None
        if kind is None:
            continue
        change = _change(step, kind)
        known = found.get((change.urn, kind))
        # A replacement is reported in up to three steps, of which not all have both sides.
        if known is None or len(change.differences) > len(known.differences):
            found[change.urn, kind] = change
    order = list(Kind)
    return sorted(
        found.values(),
        key=lambda change: (order.index(change.kind), change.component, change.name, change.urn),
    )


def unchanged_in(preview: Mapping[str, Any]) -> int:
    """Return how many resources stay the same, by Pulumi's own count; 0 where a failed preview has none."""
    return int((preview.get("changeSummary") or {}).get("same", 0))


def clean(text: str) -> str:
    """A text without what looks like a secret, and with checksums cut short."""
    return _CHECKSUM.sub(r"\1…", _redacted(text))


def shown(value: Any) -> str:
    """A value for a person: on one line, short, without secrets."""
    if isinstance(value, str):
        text = LATER if value in _UNKNOWN else value
    else:
        text = json.dumps(_masked(value), ensure_ascii=False, sort_keys=True)
    text = " ".join(clean(text).split())
    if len(text) <= _LONGEST_VALUE:
        return text
    return f"{text[:_LONGEST_VALUE]}… ({len(text)} characters)"


def steps_of(path: str) -> Path:
    """The steps of a property path as Pulumi writes it: ``spec.ports[0].name``, ``data["a.b"]``."""
    return tuple(
        int(match[2]) if match[2] else match[1].replace('\\"', '"') if match[1] is not None else match[3]
        for match in _STEP.finditer(path)
    )


def _change(step: Mapping[str, Any], kind: Kind) -> Change:
    old, new = step.get("oldState") or {}, step.get("newState") or {}
    state = new or old
    resource_type = state.get("type") or str(step["urn"]).split("::")[2].rpartition("$")[2]
    parent = state.get("parent") or ""
    differences = _differences(step, resource_type) if old and new else ()
    return Change(
        kind=kind,
        urn=step["urn"],
        type=resource_type,
        name=str(step["urn"]).rpartition("::")[2],
        component="" if not parent or f"::{_STACK}::" in parent else parent.rpartition("::")[2],
        old=old.get("inputs") or {},
        differences=tuple(sorted(differences, key=lambda one: (not one.replaces, one.path))),
    )


def _differences(step: Mapping[str, Any], resource_type: str) -> Iterator[Difference]:
    old, new = step["oldState"], step["newState"]
    detailed = step.get("detailedDiff") or {}
    reasons = step.get("replaceReasons") or ()
    if detailed:
        for path, change in detailed.items():
            steps = steps_of(path)
            before = old.get("inputs" if change.get("inputDiff") else "outputs") or {}
            replaces = str(change.get("kind", "")).endswith("-replace")
            yield _difference(resource_type, steps, before, new.get("inputs") or {}, replaces=replaces)
        return
    before, after = old.get("inputs") or {}, new.get("inputs") or {}
    for steps in sorted({*_leaves(before), *_leaves(after)}, key=str):
        if _at(before, steps) != _at(after, steps) and not _HIDDEN.intersection(steps):
            yield _difference(resource_type, steps, before, after, replaces=steps[0] in reasons)


def _difference(
    resource_type: str, steps: Path, before: Mapping[str, Any], after: Mapping[str, Any], *, replaces: bool
) -> Difference:
    written = "".join(
        f"[{step}]" if isinstance(step, int) else f'["{step}"]' if "." in step else f".{step}"
        for step in steps
    ).lstrip(".")
    sides = [
        None if (value := _at(side, steps)) is None else _side(resource_type, steps, side, value)
        for side in (before, after)
    ]
    return Difference(path=clean(written)[:_LONGEST_PATH], old=sides[0], new=sides[1], replaces=replaces)


def _side(resource_type: str, steps: Path, side: Mapping[str, Any], value: Any) -> str:
    return SECRET if _is_secret(resource_type, steps, side) else shown(value)


def _is_secret(resource_type: str, steps: Path, side: Mapping[str, Any]) -> bool:
    if resource_type == _SECRET_OBJECT and steps[:1] in (("data",), ("stringData",)):
        return True
    if any(isinstance(step, str) and names_secret(step) for step in steps):
        return True
    return any(_is_named_secret(_at(side, steps[:length])) for length in range(1, len(steps)))


def _is_named_secret(value: Any) -> bool:
    """Whether it is a pair of name and value, as environment variables are, of which the name says `secret`."""
    return isinstance(value, Mapping) and names_secret(str(value.get("name", ""))) and "value" in value


def _masked(value: Any) -> Any:
    match value:
        case Mapping():
            hide_value = _is_named_secret(value)
            return {
                key: SECRET if names_secret(str(key)) or (hide_value and key == "value") else _masked(item)
                for key, item in value.items()
            }
        case list() | tuple():
            return [_masked(item) for item in value]
        case str():  # before it is quoted, and what is inside with it
            return LATER if value in _UNKNOWN else clean(value)
        case _:
            return value


def _leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    inner: Iterable[tuple[Step, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    empty = True
    for step, item in inner:
        empty = False
        yield from _leaves(item, (*path, step))
    if empty and path:
        yield path


def _at(value: Any, path: Path) -> Any:
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value
