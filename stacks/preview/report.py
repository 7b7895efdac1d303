"""A preview as short Markdown that a pull request's comment can carry: `make preview-report`.

What could hurt comes first: replaces and deletes with what they would lose, then what drifted, updates with old and
new values, creates by component, policy findings, diagnostics. The same preview gives the same text.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stacks.preview.changes import Change, Difference, Kind, changes_of, clean, unchanged_in
from stacks.preview.data_loss import data_loss

LIMIT = 65_000
"""Characters; GitHub takes 65,536."""
_ROOM_FOR_THE_END = 300
_MANDATORY = "mandatory"
_LONGEST_TEXT = 1_500
_DIFFERENCES_EACH = 25
_TOLD = {"error": "Errors", "warning": "Warnings"}
_PLUG_IN_FOUND = re.compile(r"warning: using pulumi-\S+ from \$PATH at ")
"""Says where this machine keeps a plug-in, which is no news to a reader."""
_HEADINGS: Mapping[Kind, str] = {
    Kind.REPLACE: "Replaced: deleted and made anew",
    Kind.DELETE: "Deleted",
    Kind.DRIFT: "Changed behind Pulumi's back",
    Kind.UPDATE: "Updated",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a policy found."""

    rule: str
    level: str
    """``mandatory``, which stops the update, or ``advisory``."""
    urn: str
    message: str

    @property
    def stops(self) -> bool:
        """Whether the update could not be made."""
        return self.level == _MANDATORY


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """All that one preview brought."""

    environment: str
    document: Mapping[str, Any]
    """What `pulumi preview --json` printed; empty if it printed nothing."""
    findings: Sequence[Finding] = ()
    failed: bool = False
    errors: str = ""
    """What Pulumi wrote beside the document."""
    refreshed: bool = False
    changes: Sequence[Change] = field(init=False)

    @classmethod
    def of(cls, environment: str, printed: str, events: str, **more: Any) -> "Preview":
        """A preview from what Pulumi printed, and from its log of events (a line of JSON each)."""
        try:
            document = json.loads(printed)
        except ValueError:
            document = {}
        found = findings_of(json.loads(line) for line in events.splitlines() if "policyEvent" in line)
        return cls(environment=environment, document=document, findings=found, **more)

    def __post_init__(self) -> None:
        object.__setattr__(self, "changes", changes_of(self.document, refreshed=self.refreshed))

    @property
    def good(self) -> bool:
        """Whether the update could be made."""
        return not self.failed and not any(finding.stops for finding in self.findings)


def findings_of(events: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """The findings among the engine's events (`apitype.PolicyEvent`), each once, in a stable order."""
    found = {
        Finding(
            rule=event["policyName"],
            level=event["enforcementLevel"],
            urn=event.get("resourceUrn", ""),
            message=event["message"],
        )
        for event in (whole["policyEvent"] for whole in events if whole.get("policyEvent"))
    }
    return sorted(found, key=lambda one: (not one.stops, one.rule, one.urn, one.message))


def marker(environment: str) -> str:
    """The hidden line by which the comment of an environment is found again."""
    return f"<!-- marketlake preview: {environment} -->"


def report(preview: Preview) -> str:
    """The Markdown, at most LIMIT characters; what does not fit is counted."""
    head = [marker(preview.environment), f"## Preview of `{preview.environment}`", "", _summary(preview)]
    text = "\n".join(head) + "\n"
    left_out = 0
    for block in _blocks(preview):
        if left_out or len(text) + len(block) + 1 > LIMIT - _ROOM_FOR_THE_END:
            left_out += 1
        else:
            text += f"{block}\n"
    if left_out:
        text += f"\n{left_out} more entries do not fit: `make preview ENV={preview.environment}` shows all.\n"
    return text


def _summary(preview: Preview) -> str:
    changes = preview.changes
    counts = [
        f"{number} to {kind}"
        for kind in (Kind.REPLACE, Kind.DELETE, Kind.UPDATE, Kind.CREATE)
        if (number := sum(change.kind is kind for change in changes))
    ]
    if drifted := sum(change.kind is Kind.DRIFT for change in changes):
        counts.append(f"{drifted} changed behind Pulumi's back")
    same = unchanged_in(preview.document)
    told = " · ".join([f"**{count}**" for count in counts] or ["**No change**"])
    if same:
        told += f" · {same} unchanged"
    if preview.failed and not changes:
        told = "**The preview failed**"
    elif preview.failed:
        told = f"**The preview failed** · {told}"
    stops = sum(finding.stops for finding in preview.findings)
    if stops:
        told += f" · **{_count(stops, 'policy violation')}**"
    return told


def _blocks(preview: Preview) -> Iterator[str]:
    """The rest, in pieces that are shown whole or not at all."""
    for kind, heading in _HEADINGS.items():
        chosen = [change for change in preview.changes if change.kind is kind]
        if chosen:
            yield f"\n### {heading}"
            yield from map(_entry, chosen)
    yield from _creates([change for change in preview.changes if change.kind is Kind.CREATE])
    if preview.findings:
        yield "\n### Policy findings"
        yield from map(_finding, preview.findings)
    yield from _diagnostics(preview)


def _entry(change: Change) -> str:
    lines = [f"- {_resource(change)}"]
    if change.kind in (Kind.REPLACE, Kind.DELETE):
        lost = data_loss(change.type, change.old)
        lines[0] += f": loses {lost}" if lost else ""
    lines += [f"  - {_difference(one)}" for one in change.differences[:_DIFFERENCES_EACH]]
    if more := len(change.differences) - _DIFFERENCES_EACH:
        lines += [f"  - {_count(more, 'more property', 'more properties')}"] if more > 0 else []
    return "\n".join(lines)


def _difference(difference: Difference) -> str:
    why = " (replaces)" if difference.replaces else ""
    path = _code(difference.path)
    if difference.old is None and difference.new is None:
        return f"{path}{why}"
    if difference.old is None:
        return f"{path}{why}: {_code(difference.new or '')} (new)"
    if difference.new is None:
        return f"{path}{why}: {_code(difference.old)} (removed)"
    if difference.old == difference.new:
        return f"{path}{why}: {_code(difference.new)}, changed where it is not shown"
    return f"{path}{why}: {_code(difference.old)} → {_code(difference.new)}"


def _creates(created: Sequence[Change]) -> Iterator[str]:
    if not created:
        return
    yield "\n### Created"
    for component in sorted({change.component for change in created}):
        own = [change for change in created if change.component == component]
        kinds: dict[str, list[str]] = {}
        for change in own:
            kinds.setdefault(change.short_type, []).append(_code(change.name))
        listed = "; ".join(f"{kind} {', '.join(names)}" for kind, names in sorted(kinds.items()))
        yield f"- **{_line(component) or 'the stack itself'}** ({len(own)}): {listed}"


def _finding(finding: Finding) -> str:
    first, *rest = _text(finding.message).splitlines() or [""]
    name, kind = finding.urn.rpartition("::")[2], finding.urn.rpartition("::")[0].rpartition(":")[2]
    where = f" {kind} {_code(name)}" if name else ""
    lines = [f"- **{finding.level}** {_code(finding.rule)}{where}: {_line(first)}"]
    return "\n".join([*lines, *(f"  - {_line(line)}" for line in rest if line.strip())])


def _diagnostics(preview: Preview) -> Iterator[str]:
    told: dict[tuple[str, str, str], None] = {}
    for diagnostic in preview.document.get("diagnostics") or ():
        severity = str(diagnostic.get("severity", "")).partition("#")[0]
        name = str(diagnostic.get("urn") or "").rpartition("::")[2]
        message = str(diagnostic.get("message", "")).strip()
        if message and not _PLUG_IN_FOUND.match(message):
            told[severity, name, message.removeprefix(f"{severity}: ")] = None
    if preview.failed and preview.errors.strip():
        told["error", "", preview.errors.strip()] = None
    for severity, heading in _TOLD.items():
        chosen = [(name, message) for kind, name, message in told if kind == severity]
        if chosen:
            yield f"\n### {heading}"
        for name, message in chosen:
            about = f"{_code(name)}\n" if name else ""
            yield f"{about}{_fenced(_text(message))}"


def _resource(change: Change) -> str:
    of = f" of {_line(change.component)}" if change.component else ""
    return f"{change.short_type} {_code(change.name)}{of}"


def _text(text: str) -> str:
    """Return a text of another program without secrets, and not too long."""
    text = clean(text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text)} characters)"


def _line(text: str) -> str:
    """On one line, with what Markdown or HTML would take for its own put out of force."""
    return re.sub(r"([\\`*_<>\[\]#|@])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """As code; a backtick inside would end it."""
    return f"`{' '.join(text.replace('`', chr(39)).split()) or ' '}`"


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"
