from pathlib import Path
from typing import Any

import pytest

from stacks.settings.environment import EnvironmentSettings
from stacks.settings.validation import InvalidSettingsError, read_environment, section_at, settings_from

ENVIRONMENTS = Path(__file__).parents[4] / "stacks" / "environments"


@pytest.mark.parametrize("path", sorted(ENVIRONMENTS.glob("Pulumi.*.yaml")), ids=lambda path: path.name)
def test_the_projects_own_environments_are_valid(path: Path) -> None:
    read_environment(path)


def test_nothing_has_to_be_set() -> None:
    settings = settings_from({}, source="test")
    assert settings == EnvironmentSettings()
    assert settings.venue.stand_in
    assert not settings.keep_data


def problems(config: dict[str, Any]) -> str:
    with pytest.raises(InvalidSettingsError) as caught:
        settings_from(config, source="Pulumi.test.yaml")
    assert "docs/reference/settings.md" in str(caught.value)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("config", "place", "nearest"),
    [
        ({"marketlake:prots": {}}, "marketlake:prots", "ports"),
        ({"prots": {}}, "marketlake:prots", "ports"),
        ({"marketlake:ports": {"objectstore": 9000}}, "marketlake:ports.objectstore", "objectStore"),
        ({"marketlake:ports": {"object-store": 9000}}, "marketlake:ports.object-store", "objectStore"),
        ({"marketlake:ports": {"object_store": 9000}}, "marketlake:ports.object_store", "objectStore"),
        ({"marketlake:eventBus": '{"retention": 3}'}, "marketlake:eventBus.retention", "retentionHours"),
        ({"marketlakes:ports": {}}, "marketlakes:ports", "marketlake"),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest_that_is_meant(
    config: dict[str, Any], place: str, nearest: str
) -> None:
    text = problems(config)
    assert text.startswith(f"{place}: unknown ")
    assert f"Did you mean {nearest}?" in text
    assert "Allowed: " in text


def test_a_key_that_resembles_nothing_lists_what_is_allowed() -> None:
    text = problems({"marketlake:venue": {"zzz": 1}})
    assert text == "marketlake:venue.zzz: unknown key. Allowed: bucket, endpoint, standIn."


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"ports": {"database": 80}},
            "marketlake:ports.database: 80 should be greater than or equal to 1024",
        ),
        ({"ports": {"database": 99999}}, "99999 should be less than or equal to 65535"),
        ({"ports": {"database": "x"}}, "marketlake:ports.database: 'x' should be a valid integer"),
        ({"ports": 5}, "marketlake:ports: 5 should be an object with some of the keys database, objectStore"),
        ({"ports": "{oops"}, "marketlake:ports: '{oops' should be an object"),
        (
            {"ports": {"database": 5000, "eventBus": 5000}},
            "marketlake:ports: database and eventBus are both 5000",
        ),
        ({"target": "moon"}, "marketlake:target: 'moon' should be 'host' or 'kubernetes'"),
        ({"dataFolder": "here"}, "marketlake:dataFolder: 'here' must be an absolute path"),
        ({"dataFolder": "/srv"}, "'/srv' must be an absolute path of a folder of its own"),
        ({"venue": {"endpoint": "example.com"}}, "marketlake:venue.endpoint: 'example.com' is no base URL"),
        ({"buckets": {"lake": "A"}}, "marketlake:buckets.lake: 'A' is no bucket name"),
        (
            {"buckets": {"lake": "landing"}},
            "landing, lake and standIn are landing, landing, venue: give each",
        ),
        ({"eventBus": {"memory": 100}}, "marketlake:eventBus.memory: 100 should be greater"),
        (
            {"collection": {"workers": {"secure": 1}}},
            "marketlake:collection.workers: should be a valid integer",
        ),
        ({"keepData": {"secure": "v1:x"}}, "keepData: is encrypted, and it is no secret itself"),
    ],
)
def test_an_impossible_value_is_named_with_its_place(config: dict[str, Any], message: str) -> None:
    assert message in problems(config)


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = problems({"prots": {}, "target": "moon", "venue": {"endpoint": "x", "y": 1}})
    assert len(text.splitlines()) == 4


def test_values_are_understood_as_pulumi_hands_them_to_a_program() -> None:
    settings = settings_from(
        {
            "marketlake:keepData": "true",
            "marketlake:dataFolder": "/srv/marketlake/x",
            "marketlake:ports": '{"eventBus": 19092, "traceStoreOtlp": 14328}',
            "marketlake:collection": '{"workers": 3, "requestsPerSecond": 0.5}',
            "aws:region": "eu-west-1",
        },
        source="test",
    )
    assert settings.keep_data
    assert settings.ports.by_service() == {"event-bus": {"client": 19092}, "trace-store": {"otlp": 14328}}
    assert (settings.collection.workers, settings.collection.requests_per_second) == (3, 0.5)
    assert settings.folder("any") == Path("/srv/marketlake/x")


def test_the_data_folder_is_named_after_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETLAKE_HOME", "/data")
    assert EnvironmentSettings().folder("blue") == Path("/data/blue")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config: [1]", "`config` is [1]; it must hold `marketlake:…` keys"),
        ("- 1", "`config` is [1]"),
        ("config: {a: b: c}", "line 1, column 14"),
    ],
)
def test_a_file_that_is_no_configuration_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(text)
    with pytest.raises(InvalidSettingsError) as caught:
        read_environment(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "config:\n", "config: {}\n", "encryptionsalt: v1:x\n"])
def test_a_file_without_settings_is_all_defaults(tmp_path: Path, text: str) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(text)
    assert read_environment(path) == EnvironmentSettings()


def test_an_environment_that_does_not_exist_names_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingsError, match="there is no environment in"):
        read_environment(tmp_path / "Pulumi.blue.yaml")
    (tmp_path / "Pulumi.red.yaml").touch()
    with pytest.raises(InvalidSettingsError, match="environments are red"):
        read_environment(tmp_path / "Pulumi.blue.yaml")


def test_sections_are_found_by_their_place() -> None:
    assert section_at(()) is EnvironmentSettings
    assert section_at(("ports", "database")) is None
    assert section_at(("nothing",)) is None
