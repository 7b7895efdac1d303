"""What each environment consists of, held against what was reviewed, and against the policies."""

import pytest

from policies.rules import RULES, Enforcement, violations
from tests.golden.plan import environments, plan_of
from tests.golden.summary import FOLDER, golden, summary

ENVIRONMENTS = environments()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_plan_changes_only_together_with_its_page(environment: str) -> None:
    page = golden(environment)
    assert page.exists(), f"run `make golden` and commit {page.name}"
    assert page.read_text() == summary(environment), "read the change, then run `make golden` and commit it"


def test_no_page_outlives_its_environment() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} == set(ENVIRONMENTS), "run `make golden`"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_secret_is_on_a_page(environment: str) -> None:
    assert "value-of-" not in summary(environment)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_environment_keeps_every_policy(environment: str) -> None:
    resources = [one.declared for one in plan_of(environment)]
    found = [
        f"{resource.type} {resource.name}: {rule.id}: {violation}"
        for resource in resources
        for rule, violation in violations(resource.type, resource.properties)
    ]
    found += [
        f"{resource.type} {resource.name}: {rule.id}: {violation}"
        for rule in RULES
        if rule.stack and rule.enforcement is Enforcement.MANDATORY
        for resource, violation in rule.stack(resources)
    ]
    assert found == []
