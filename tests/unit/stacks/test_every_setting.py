"""No setting does nothing: each, changed alone, changes what is declared to Pulumi."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from stacks.composition import Platform
from stacks.needs import needs_of
from stacks.settings import EnvironmentSettings
from stacks.validation import section_at, settings_from
from tests.unit.stacks.engine import all_tools_installed, declare

CHANGED: Mapping[str, Any] = {
    "dataFolder": "/srv/marketlake/other",
    "keepData": True,
    "venue.standIn": False,
    "venue.endpoint": "https://s3.example.com",
    "buckets.landing": "other-landing",
    "buckets.lake": "other-lake",
    "buckets.standIn": "other-venue",
    "telemetry.metricsRetentionDays": 31,
    "telemetry.logsRetentionDays": 15,
    "telemetry.tracesRetentionHours": 73,
}
"""Values that are not simply the default plus something."""
NEEDS: Mapping[str, dict[str, Any]] = {"venue.bucket": {"venue": {"endpoint": "https://s3.example.com"}}}
"""What has to be set besides for a setting to mean anything."""
COUNTED = {"workflowEngine.memory", "workflowEngine.workerMemory", "collection.memory"}
"""Settings that only the check of the machine's size uses: these programs have no limit that could be set."""
ONE_VALUE = {"target"}
"""Settings that allow a single value so far."""


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    all_tools_installed(monkeypatch)


def declared(settings: EnvironmentSettings) -> str:
    """Everything that an environment with these settings declares to Pulumi, as text."""
    engine = declare(lambda: Platform("test", settings).export())
    return json.dumps(engine.declared, sort_keys=True, default=str)


def leaves(place: tuple[str, ...] = ()) -> Iterator[str]:
    section = section_at(place)
    assert section is not None
    for field in section.model_fields.values():
        inner = (*place, str(field.alias))
        if section_at(inner) is None:
            yield ".".join(inner)
        else:
            yield from leaves(inner)


def default_of(place: str) -> Any:
    *sections, key = place.split(".")
    section = section_at(tuple(sections))
    assert section is not None
    return next(field.default for field in section.model_fields.values() if field.alias == key)


def other_value(place: str) -> Any:
    if place in CHANGED:
        return CHANGED[place]
    if place.startswith("ports."):
        return 23456
    default = default_of(place)
    return f"other-{default}" if isinstance(default, str) else default * 2


def nested(place: str, value: Any) -> dict[str, Any]:
    section, _, key = place.rpartition(".")
    return {section: {key: value}} if section else {key: value}


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {key: {**base.get(key, {}), **more.get(key, {})} for key in base | more} if base else more


@pytest.mark.parametrize("place", [place for place in leaves() if place not in ONE_VALUE | COUNTED])
def test_a_setting_changes_what_is_declared(place: str) -> None:
    before = NEEDS.get(place, {})
    after = merged(before, nested(place, other_value(place)))
    assert declared(settings_from(before, source="before")) != declared(settings_from(after, source="after"))


@pytest.mark.parametrize("place", sorted(COUNTED))
def test_memory_without_a_limit_is_counted(place: str) -> None:
    more = settings_from(nested(place, other_value(place)), source="after")
    assert needs_of(more, is_new=True).memory_mib > needs_of(EnvironmentSettings(), is_new=True).memory_mib


def test_the_same_settings_declare_the_same() -> None:
    assert declared(EnvironmentSettings()) == declared(EnvironmentSettings())
