"""What the Pulumi program makes of a stack's configuration: outputs, the platform file, errors in plain words."""

import asyncio
import json
import os
import runpy
import signal
from collections.abc import Iterator
from typing import Any

import pulumi
import pytest
from marketlake.settings import Settings

from components.supervision import resolution
from stacks import preflight
from stacks.preflight.cluster import ClusterUnreachableError
from stacks.program.platform import Platform
from tests.unit.stacks.declaring import Engine, all_tools_installed, declare, opened
from toolchain import ToolMissingError

SERVICES = {
    "database", "object-store", "event-bus", "workflow-engine", "workflow-worker", "collection-worker",
    "metrics-store", "log-store", "trace-store", "telemetry-collector",
}  # fmt: skip


@pytest.fixture(autouse=True)
def interrupt() -> Iterator[None]:
    """The program takes the interrupt signal for itself."""
    former = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    all_tools_installed(monkeypatch)
    monkeypatch.setenv("MARKETLAKE_HOME", "/srv/lake")


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The stack's outputs, once the program ran."""
    outputs: dict[str, Any] = {}
    secret: set[str] = set()
    looks: list[asyncio.Future[None]] = []

    def export(name: str, value: pulumi.Input[Any]) -> None:
        output = pulumi.Output.from_input(value)

        async def look() -> None:
            outputs[name] = await output.future()
            if await output.is_secret():
                secret.add(name)

        looks.append(asyncio.ensure_future(look()))

    monkeypatch.setattr(pulumi, "export", export)
    outputs["secret"] = secret
    return outputs


def run(monkeypatch: pytest.MonkeyPatch, **config: Any) -> Engine:
    texts = {
        f"marketlake:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in config.items()
    }
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(texts))
    return declare(lambda: runpy.run_module("stacks", run_name="__main__"))


def platform(engine: Engine) -> Settings:
    return Settings.model_validate_json(opened(engine.inputs("platform-file")["settings"]))


def test_the_outputs_say_where_everything_is_and_hold_no_secret(
    monkeypatch: pytest.MonkeyPatch, exported: dict[str, Any]
) -> None:
    run(monkeypatch, ports={"objectStore": 7000})
    assert exported["secret"] == set()
    assert "value-of-" not in str(exported)
    assert exported["environment"] == "test"
    assert exported["platformFile"] == "/srv/lake/test/platform.json"
    assert exported["endpoints"]["object-store"] == "http://127.0.0.1:7000"
    assert exported["endpoints"]["database"] == "127.0.0.1:5432"
    assert "workflow-worker" not in exported["endpoints"], "it listens nowhere"
    assert set(exported["consoles"]) == {
        "object-store", "workflow-engine", "metrics-store", "log-store", "trace-store",
    }  # fmt: skip
    assert exported["otlpEndpoint"] == exported["endpoints"]["telemetry-collector"]


def test_the_platform_file_tells_the_runtime_all_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = run(
        monkeypatch,
        collection={
            "concurrency": 3,
            "attempts": 9,
            "requestsPerSecond": 2,
            "maxInflatedMib": 5,
            "maxInflationRatio": 7,
        },
    )
    settings = platform(engine)
    assert engine.inputs("platform-file")["path"] == "/srv/lake/test/platform.json"
    assert settings.environment == "test"
    assert {service.name for service in settings.services} == SERVICES
    assert settings.object_store.access_key_id == "marketlake-runtime", "not the store's administrator"
    assert settings.object_store.secret_access_key.get_secret_value() == "value-of-data-lake-runtime-key"
    assert settings.database.user == settings.database.name == "marketlake"
    assert settings.database.password.get_secret_value() == "value-of-database-marketlake-password"
    assert settings.workflow_engine.auth_string
    assert (
        settings.workflow_engine.auth_string.get_secret_value()
        == "marketlake:value-of-workflow-engine-password"
    )
    collection = settings.collection
    assert (collection.concurrency, collection.attempts, collection.requests_per_second) == (3, 9, 2)
    assert (collection.max_inflated_mib, collection.max_inflation_ratio) == (5, 7)


def test_workers_get_the_very_settings_of_the_platform_file_but_for_the_services(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = run(monkeypatch)
    told = platform(engine).model_copy(update={"services": ()})
    for worker in ("workflow-worker", "collection-workers"):
        files = opened(engine.inputs(f"{worker}-process")["secret_files"])
        assert Settings.model_validate_json(files["platform.json"]) == told


@pytest.mark.parametrize(
    ("venue", "endpoint", "bucket"),
    [
        ({}, "http://127.0.0.1:9000", "venue"),
        (
            {"endpoint": "https://s3.example.com", "bucket": "data.example.com"},
            "https://s3.example.com",
            "data.example.com",
        ),
    ],
    ids=["stand-in", "public archive"],
)
def test_the_archive_is_read_where_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, venue: dict[str, Any], endpoint: str, bucket: str
) -> None:
    read_at = platform(run(monkeypatch, venue=venue, buckets={"standIn": "venue"})).venues["binance"]
    assert (read_at.endpoint, read_at.bucket) == (endpoint, bucket)


def test_without_a_stand_in_the_venues_public_address_is_left_to_its_plug_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert platform(run(monkeypatch, venue={"standIn": False})).venues == {}


def test_no_password_can_be_read_in_what_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = run(monkeypatch)

    def visible(value: Any) -> str:
        match value:
            case dict() if "4dabf18193072939515e22adb298388d" in value:
                return "[secret]"
            case dict():
                return str({key: visible(item) for key, item in value.items()})
            case list():
                return str([visible(item) for item in value])
            case _:
                return str(value)

    for resource, inputs in engine.declared.items():
        assert "value-of-" not in visible(inputs), resource


def test_wrong_settings_are_told_without_a_stack_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        pulumi.RunError, match=r"configuration of the stack 'test' is not valid:\n  marketlake:prots"
    ):
        run(monkeypatch, prots={})


def test_a_missing_tool_is_told_without_a_stack_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ToolMissingError(f"{name} is not installed; run: make tools")

    monkeypatch.setattr(resolution, "locate", missing)
    with pytest.raises(pulumi.RunError, match="is not installed; run: make tools"):
        run(monkeypatch)


def test_an_interrupted_program_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    run(monkeypatch)
    monkeypatch.setattr(os, "_exit", left.append)
    signal.raise_signal(signal.SIGINT)
    assert left == [1]


class Cluster:
    """Preflight of which something is said, or that do not answer."""

    def __init__(self, answers: bool) -> None:
        self._answers = answers

    def check(self) -> list[str]:
        if not self._answers:
            raise ClusterUnreachableError("The cluster at https://c.test does not answer.")
        return ["it is small"]


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was warned of; in the place of the platform nothing is declared."""
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", told.append)
    monkeypatch.setattr(Platform, "__init__", lambda *_: None)
    monkeypatch.setattr(Platform, "export", lambda _: told.append("declared"))
    return told


def test_a_cluster_is_looked_at_before_anything_is_declared(
    monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    monkeypatch.setattr(preflight, "preflight_of", lambda *_: Cluster(answers=True))
    run(monkeypatch, target="kubernetes")
    assert warned == ["it is small", "declared"]


@pytest.mark.parametrize("preview", [True, False])
def test_a_cluster_that_does_not_answer_stops_all_but_a_preview(
    monkeypatch: pytest.MonkeyPatch, warned: list[str], preview: bool
) -> None:
    monkeypatch.setattr(preflight, "preflight_of", lambda *_: Cluster(answers=False))
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: preview)
    if preview:
        run(monkeypatch, target="kubernetes")
        assert warned == [
            "The cluster at https://c.test does not answer. The preview goes on without it",
            "declared",
        ]
    else:
        with pytest.raises(pulumi.RunError, match="does not answer"):
            run(monkeypatch, target="kubernetes")
        assert warned == []
