import logging
from collections.abc import Mapping
from typing import Any

import pytest
from pulumi.dynamic import Config, ConfigureRequest
from pulumi.runtime.rpc import UNKNOWN
from pydantic import BaseModel, ConfigDict, Field

from components.providers.base import (
    DRIFT,
    RESERVED,
    Inputs,
    Provider,
    Record,
    ResourceError,
    UnreachableError,
)


class Room(BaseModel):
    model_config = ConfigDict(extra="forbid")

    door: str = "front"


class ShelfRecord(Record):
    name: str
    room: Room = Room()


class ShelfInputs(ShelfRecord, Inputs):
    name: str = Field(pattern=r"^[a-z]+$")
    key: str
    boards: int = Field(default=3, ge=1)
    colour: str | None = None
    books: list[str] = Field(default_factory=list)


class ShelfProvider(Provider[ShelfInputs, ShelfRecord]):
    """A shelf in a world that is a dictionary."""

    model = ShelfInputs
    record = ShelfRecord
    identity = frozenset({"name"})

    def __init__(self) -> None:
        self.world: dict[str, dict[str, Any]] = {}
        self.unreachable = False

    def resource_id(self, declared: ShelfInputs) -> str:
        return declared.name

    def apply(self, declared: ShelfInputs) -> Mapping[str, Any]:
        self.world[declared.name] = {"boards": declared.boards, "colour": declared.colour}
        return {"serial": 7}

    def observe(self, recorded: ShelfRecord) -> Mapping[str, Any] | None:
        if self.unreachable:
            raise UnreachableError("The room is locked.")
        return self.world.get(recorded.name)

    def remove(self, recorded: ShelfRecord) -> None:
        self.world.pop(recorded.name, None)

    def replaced_by(self, recorded: Mapping[str, Any], declared: Mapping[str, Any]) -> list[str]:
        return ["boards"] if declared["boards"] < recorded["boards"] else []


NEWS = {"name": "a", "key": "s3cret", "version": "1", RESERVED: "pickle"}


@pytest.fixture
def provider() -> ShelfProvider:
    return ShelfProvider()


def test_a_check_fills_in_defaults(provider: ShelfProvider) -> None:
    result = provider.check({}, dict(NEWS))
    assert not result.failures
    assert result.inputs == {
        "name": "a", "key": "s3cret", "version": "1", "boards": 3, "colour": None, "books": [],
        "room": {"door": "front"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "place"),
    [({"boards": 0}, "boards"), ({"bords": 3}, "bords"), ({"name": None}, "name")],
)
def test_a_check_names_the_property_and_shows_no_value(
    provider: ShelfProvider, wrong: dict[str, Any], place: str
) -> None:
    result = provider.check({}, NEWS | wrong)
    assert [failure.property for failure in result.failures] == [place]
    assert "s3cret" not in result.failures[0].reason


@pytest.mark.parametrize("unknown", [UNKNOWN, {"inner": [UNKNOWN]}])
def test_a_check_lets_values_pass_that_are_not_known_yet(provider: ShelfProvider, unknown: Any) -> None:
    result = provider.check({}, NEWS | {"key": unknown})
    assert not result.failures
    assert result.inputs["key"] == unknown
    assert result.inputs["boards"] == 3


def test_the_same_declaration_is_no_change(provider: ShelfProvider) -> None:
    inputs = provider.check({}, dict(NEWS)).inputs
    created = provider.create(inputs)
    recorded = {
        key: value for key, value in (created.outs or {}).items() if value is not None
    }  # as Pulumi does
    diff = provider.diff("a", recorded, inputs)
    assert (diff.changes, diff.replaces) == (False, [])


@pytest.mark.parametrize(
    ("change", "replaces"),
    [
        ({"colour": "red"}, []),
        ({"version": "2"}, []),
        ({"name": "b"}, ["name"]),
        ({"boards": 1}, ["boards"]),
        ({"boards": 9}, []),
    ],
)
def test_a_change_updates_or_replaces(
    provider: ShelfProvider, change: dict[str, Any], replaces: list[str]
) -> None:
    inputs = provider.check({}, dict(NEWS)).inputs
    recorded = dict(provider.create(inputs).outs or {})
    diff = provider.diff("a", recorded, inputs | change)
    assert (diff.changes, diff.replaces, diff.delete_before_replace) == (True, replaces, True)


def test_an_optional_input_that_is_no_longer_declared_is_a_change(provider: ShelfProvider) -> None:
    recorded = provider.check({}, NEWS | {"colour": "red"}).inputs
    news = {key: value for key, value in provider.check({}, dict(NEWS)).inputs.items() if value is not None}
    assert provider.diff("a", recorded, news).changes


def test_a_value_that_is_not_known_yet_replaces_nothing(provider: ShelfProvider) -> None:
    recorded = provider.check({}, dict(NEWS)).inputs
    diff = provider.diff("a", recorded, recorded | {"key": UNKNOWN, "boards": 1})
    assert (diff.changes, diff.replaces) == (True, [])


def test_creation_and_update_return_inputs_and_outputs(provider: ShelfProvider) -> None:
    created = provider.create(dict(NEWS))
    assert created.id == "a"
    assert created.outs == provider.check({}, dict(NEWS)).inputs | {"serial": 7}
    updated = provider.update("a", created.outs, NEWS | {"boards": 4})
    assert updated.outs == created.outs | {"boards": 4}
    assert provider.world == {"a": {"boards": 4, "colour": None}}


def test_a_refresh_returns_what_is_there_as_outputs_and_as_inputs(provider: ShelfProvider) -> None:
    outs = dict(provider.create(dict(NEWS)).outs or {})
    provider.world["a"] = {"boards": 5, "colour": "red"}
    live = provider.read("a", outs)
    assert live.id == "a"
    assert live.outs == outs | {"boards": 5, "colour": "red"}
    assert live.inputs == {key: value for key, value in live.outs.items() if key != "serial"}


def test_a_refresh_of_what_is_gone_says_so(provider: ShelfProvider) -> None:
    outs = dict(provider.create(dict(NEWS)).outs or {})
    provider.world.clear()
    live = provider.read("a", outs)
    assert (live.id, live.outs) == ("", {})


def test_a_refresh_that_cannot_see_keeps_what_is_recorded_and_warns(
    provider: ShelfProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = dict(provider.create(dict(NEWS)).outs or {})
    provider.unreachable = True
    live = provider.read("a", outs | {RESERVED: "pickle"})
    assert (live.id, live.outs, live.inputs) == ("a", outs, None)
    assert "The room is locked. What is recorded of 'a' was kept unseen." in capsys.readouterr().err


def test_a_deletion_takes_what_an_older_version_recorded(provider: ShelfProvider) -> None:
    provider.create(dict(NEWS))
    provider.delete("a", NEWS | {"serial": 7, "wheels": 4})
    assert provider.world == {}


def test_properties_that_cannot_be_used_are_told_without_their_values(provider: ShelfProvider) -> None:
    with pytest.raises(ResourceError, match="ShelfProvider cannot use its properties: boards: ") as caught:
        provider.update("a", dict(NEWS), NEWS | {"boards": "s3cret"})
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ResourceError, match="ShelfProvider cannot use its properties: name: "):
        provider.delete("a", {"version": "1"})


def test_drift_to_values_that_could_not_be_declared_is_seen_mended_and_taken_away(
    provider: ShelfProvider,
) -> None:
    inputs = provider.check({}, dict(NEWS)).inputs
    outs = dict(provider.create(inputs).outs or {})
    provider.world["a"] = {"boards": 0, "colour": 7}
    assert provider.check({}, inputs | {"boards": 0}).failures, "nobody could declare it"

    for _ in range(2):  # a refresh takes what the one before recorded
        live = provider.read("a", outs)
        outs = dict(live.outs or {})
        assert (live.id, outs["boards"], outs["colour"]) == ("a", 0, 7)
        assert live.inputs == inputs | {"boards": 0, "colour": 7}
    assert provider.diff("a", outs, inputs).changes
    updated = dict(provider.update("a", outs, inputs).outs or {})
    assert provider.world["a"]["boards"] == 3
    assert not provider.diff("a", updated, inputs).changes

    provider.delete("a", outs)
    assert provider.world == {}


def test_what_another_version_recorded_is_looked_at_and_taken_away(provider: ShelfProvider) -> None:
    outs = dict(provider.create(dict(NEWS)).outs or {})
    del outs["boards"], outs["key"]
    outs |= {"wheels": 4, "room": {"door": "back", "window": 1}, "books": "none"}
    live = provider.read("a", outs)
    assert live.outs == outs | {"boards": 3, "colour": None}
    assert "wheels" not in (live.inputs or {})
    provider.delete("a", outs)
    assert provider.world == {}


def test_what_a_resource_is_found_by_stays_as_recorded_whatever_is_observed(provider: ShelfProvider) -> None:
    outs = dict(provider.create(dict(NEWS)).outs or {})
    provider.world["a"] = {"name": "b", "boards": 3}
    live = provider.read("a", outs)
    assert ((live.outs or {})["name"], (live.inputs or {})["name"]) == ("a", "a")


def test_drift_that_no_input_shows_is_a_change_until_it_is_mended(provider: ShelfProvider) -> None:
    inputs = provider.check({}, dict(NEWS)).inputs
    outs = dict(provider.create(inputs).outs or {})
    provider.world["a"] = {DRIFT: "it leans"}
    drifted = dict(provider.read("a", outs).outs or {})
    assert drifted[DRIFT] == "it leans"
    diff = provider.diff("a", drifted, inputs)
    assert (diff.changes, diff.replaces) == (True, [])
    assert DRIFT not in (provider.update("a", drifted, inputs).outs or {})

    provider.world["a"] = {}  # somebody straightened it by hand
    assert not provider.diff("a", dict(provider.read("a", drifted).outs or {}), inputs).changes


def test_an_expected_error_is_logged_without_trace_and_a_defect_with_it(provider: ShelfProvider) -> None:
    log = logging.getLogger("grpc._server")
    former = list(log.filters)
    try:
        provider.configure(ConfigureRequest(Config({}, "project")))
        provider.configure(ConfigureRequest(Config({}, "project")))
        (added,) = [known for known in log.filters if known not in former]

        def kept(error: Exception) -> bool:
            info = (type(error), error, None)
            record = logging.LogRecord("grpc._server", logging.ERROR, "", 0, "failed", None, info)
            return bool(added.filter(record))  # type: ignore[union-attr]

        assert not kept(ResourceError("expected"))
        assert kept(ValueError("defect"))
    finally:
        log.filters = former


def test_a_provider_has_to_say_its_verbs() -> None:
    class Silent(Provider[ShelfInputs, ShelfRecord]):
        model = ShelfInputs
        record = ShelfRecord
        identity = frozenset()

    with pytest.raises(TypeError, match=r"apply.*observe.*remove.*resource_id"):
        Silent()  # type: ignore[abstract]
