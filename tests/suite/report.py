"""What the parts reported: counts, times, the slowest tests, and why tests were skipped."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from defusedxml import ElementTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test."""

    name: str
    seconds: float
    """Of the test and its fixtures."""
    failed: bool = False
    skipped: str | None = None
    """Why it was skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one part."""

    name: str
    seconds: float
    budget_s: float
    code: int
    """The exit status of pytest."""
    cases: tuple[Case, ...] = ()

    @property
    def failed(self) -> int:
        """Failed tests; at least one if pytest itself failed."""
        return max(sum(case.failed for case in self.cases), int(self.code != 0))

    @property
    def skipped(self) -> int:
        return sum(case.skipped is not None for case in self.cases)

    @property
    def passed(self) -> int:
        return sum(not case.failed and case.skipped is None for case in self.cases)


def cases_of(report: Path) -> tuple[Case, ...]:
    """The tests of a report in JUnit's format; none if pytest ended before it wrote one.

    A test whose teardown fails after it failed itself is in it twice, and counted once.
    """
    if not report.exists():
        return ()
    found: dict[str, Case] = {}
    for element in ElementTree.parse(report).iter("testcase"):
        name = "::".join(filter(None, (element.get("classname"), element.get("name"))))
        skipped = element.find("skipped")
        case = Case(
            name=name,
            seconds=float(element.get("time") or 0),
            failed=element.find("failure") is not None or element.find("error") is not None,
            skipped=None if skipped is None else skipped.get("message") or "",
        )
        if name not in found or case.failed:
            found[name] = case
    return tuple(found.values())


def summary(
    outcomes: Sequence[Outcome], *, before: Iterable[tuple[str, float]], seed: int, slowest: int, busy: float
) -> Iterator[str]:
    """The lines that end a run; the last one counts.

    Args:
        outcomes: of the parts.
        before: names and seconds of steps that were taken before the tests.
        seed: of the shuffled order and the chaos.
        slowest: how many of the slowest tests to list.
        busy: share of the processors' time that was used, by whomever.
    """
    cases = [(case, outcome.name) for outcome in outcomes for case in outcome.cases]
    yield ""
    yield f"the {min(slowest, len(cases))} slowest tests"
    for case, part in sorted(cases, key=lambda each: -each[0].seconds)[:slowest]:
        yield f"  {case.seconds:7.1f} s  {part:<12} {case.name}"
    reasons = Counter(case.skipped for case, _ in cases if case.skipped is not None)
    if reasons:
        yield "skipped"
        for reason, count in reasons.most_common():
            yield f"  {count:4d}  {reason}"
    if failed := [(case, part) for case, part in cases if case.failed]:
        yield "failed"
        yield from (f"  {part:<12} {case.name}" for case, part in failed)
    yield "parts"
    for name, seconds in before:
        yield f"  {name:<12} {_minutes(seconds)}"
    for outcome in outcomes:
        over = "" if outcome.seconds <= outcome.budget_s else ", over its budget"
        ended = "" if outcome.code == 0 else f", pytest ended with status {outcome.code}"
        yield (
            f"  {outcome.name:<12} {_minutes(outcome.seconds)} of {_minutes(outcome.budget_s)}: "
            f"{_counted([outcome])}{over}{ended}"
        )
    yield f"processors: {busy:.0%} busy"
    yield f"order of the unit tests, and kills: SEED={seed}"
    yield _counted(outcomes)


def _counted(outcomes: Sequence[Outcome]) -> str:
    passed, failed, skipped = (
        sum(getattr(outcome, kind) for outcome in outcomes) for kind in ("passed", "failed", "skipped")
    )
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:2d} min {rest:02d} s"
