"""A stack that a former commit brought up is taken over as it is: nothing that holds data is replaced or deleted."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.providers.base import Provider
from stacks.preview.data_loss import data_loss
from tests.golden.former import ENVIRONMENTS, Former, former_of, formers, read
from tests.golden.plan import Planned, plan_of

PAGES = formers()
Plan = list[Planned]


@pytest.fixture(scope="module")
def plans() -> Mapping[str, Plan]:
    return {environment: plan_of(environment) for environment in ENVIRONMENTS}


@pytest.fixture(params=PAGES, ids=lambda page: page.stem)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def plan_for(page: Path, plans: Mapping[str, Plan]) -> Plan:
    return plans[page.stem.rpartition("-")[2]]


def successors(former: Former, plan: Plan) -> Plan:
    """The planned resources that the engine takes for this one of the state."""
    return [one for one in plan if former.urn == one.registered.urn or former.urn in one.registered.aliases]


def provider_of(former: Former) -> Provider[Any, Any]:
    module, _, name = str(former.provider).partition(":")
    made: Provider[Any, Any] = getattr(importlib.import_module(module), name)()
    return made


def test_each_resource_of_a_former_stack_has_one_successor(page: Path, plans: Mapping[str, Plan]) -> None:
    plan = plan_for(page, plans)
    lost = [former.urn for former in read(page) if len(successors(former, plan)) != 1]
    assert lost == [], (
        "Pulumi deletes these: give what was renamed or moved an alias (`formerly=` for a component)"
    )


def test_no_successor_is_another_resource_in_the_former_ones_place(
    page: Path, plans: Mapping[str, Plan]
) -> None:
    replaced = []
    for former in read(page):
        for successor in successors(former, plan_for(page, plans)):
            if former.provider:
                inputs = successor.declared.properties
                changes = provider_of(former).diff("", {**inputs, **former.kept}, dict(inputs)).replaces
            else:
                changes = [] if former_of(successor).kept == former.kept else [*former.kept]
            if changes:
                replaced.append(f"{former.urn}: {', '.join(changes)}")
    assert replaced == [], "Pulumi replaces these, and what they hold is lost"


def test_the_provider_that_a_state_refers_to_still_exists(page: Path) -> None:
    referred = {former.provider: former for former in read(page) if former.provider}
    assert all(isinstance(provider_of(former), Provider) for former in referred.values())


def test_all_that_holds_data_is_held_to_this(plans: Mapping[str, Plan]) -> None:
    for environment, plan in plans.items():
        known = {former.type for page in PAGES if page.stem.endswith(environment) for former in read(page)}
        kinds = {one.declared.type for one in plan if data_loss(one.declared.type, one.declared.properties)}
        assert kinds <= known, (
            "write a page of a commit that has them: `python -m tests.golden.former <commit>`"
        )


def test_a_resource_that_moved_without_an_alias_is_found(page: Path, plans: Mapping[str, Plan]) -> None:
    plan = plan_for(page, plans)
    for former in read(page):
        moved = Former(f"marketlake:index:Elsewhere${former.urn}", former.provider, former.kept)
        assert successors(moved, plan) == []
