"""What a run of the parts ends with."""

from pathlib import Path

from tests.suite.report import Case, Outcome, cases_of, summary

REPORT = """<?xml version="1.0"?>
<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_passes" time="0.25"/>
<testcase classname="tests.test_a.TestB" name="test_fails[x]" time="1.5"><failure>…</failure></testcase>
<testcase classname="tests.test_a.TestB" name="test_fails[x]" time="0.1"><error>…</error></testcase>
<testcase classname="tests.test_a" name="test_needs_root" time="0"><skipped message="only root">…</skipped></testcase>
<testcase classname="" name="tests.unit.test_broken" time="0"><error message="collection failure">…</error></testcase>
</testsuite></testsuites>
"""


def outcome(*cases: Case, name: str = "unit", code: int = 0, seconds: float = 61.0) -> Outcome:
    return Outcome(name=name, seconds=seconds, budget_s=120, code=code, cases=cases)


def test_each_test_of_a_report_is_counted_once(tmp_path: Path) -> None:
    report = tmp_path / "unit.xml"
    report.write_text(REPORT)
    told = outcome(*cases_of(report), code=1)
    assert (told.passed, told.failed, told.skipped) == (1, 2, 1)
    assert {case.name for case in told.cases if case.failed} == {
        "tests.test_a.TestB::test_fails[x]",
        "tests.unit.test_broken",
    }


def test_a_part_that_ended_before_it_reported_has_failed(tmp_path: Path) -> None:
    told = outcome(*cases_of(tmp_path / "absent.xml"), code=3)
    assert (told.passed, told.failed) == (0, 1)


def test_the_summary_ends_with_the_counts_over_all_parts() -> None:
    cases = [Case(name=f"t{number}", seconds=number) for number in range(40)]
    skipped = Case(name="s", seconds=0, skipped="no cluster can be made here")
    failed = Case(name="f", seconds=0, failed=True)
    told = list(
        summary(
            [outcome(*cases), outcome(skipped, failed, name="kubernetes", code=1, seconds=150)],
            before=[("check", 93.0)],
            seed=7,
            slowest=30,
            busy=0.934,
        )
    )
    assert told[-1] == "40 passed, 1 failed, 1 skipped"
    assert told[-2].endswith("SEED=7")
    assert told[-3] == "processors: 93% busy"
    assert sum(" s  unit " in line for line in told) == 30
    assert any("39.0 s  unit         t39" in line for line in told)
    assert "     1  no cluster can be made here" in told
    assert "  kubernetes   f" in told
    assert "  check         1 min 33 s" in told
    assert "  unit          1 min 01 s of  2 min 00 s: 40 passed, 0 failed, 0 skipped" in told
    (over,) = (line for line in told if "over its budget" in line)
    assert over.endswith("0 passed, 1 failed, 1 skipped, over its budget, pytest ended with status 1")
