"""What the components declare to Pulumi."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks

from components import (
    data_lake,
    database,
    event_bus,
    object_store,
    observability,
    worker_pool,
    workflow_engine,
)
from components.supervision import resolution
from components.target import TargetArgs, TargetKind
from components.targets import target_of
from components.targets.host import HostTarget

TARGET: TargetArgs = {
    "kind": TargetKind.HOST,
    "host": {
        "folder": "/stack",
        "supervisor": "/stack/supervisor/supervisor.sock",
        "ports": {"object-store": {"api": 7777}},
    },
}


_SIGNATURE, _SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
"""How Pulumi's protocol marks a secret (sdk/proto, resource.SigKey and resource.SecretSig)."""


def opened(value: Any) -> Any:
    """The value within a secret, which it has to be."""
    assert value[_SIGNATURE] == _SECRET
    return value["value"]


class Engine(mocks.Mocks):
    """Records what is declared."""

    def __init__(self) -> None:
        self.declared: dict[str, mocks.MockResourceArgs] = {}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        self.declared[args.name] = args
        outputs = dict(args.inputs)
        if args.typ.endswith(":GeneratedSecret"):
            outputs["value"] = {_SIGNATURE: _SECRET, "value": f"value-of-{args.name}"}
        if args.typ.endswith(":Ports"):
            outputs["numbers"] = {**args.inputs["preferred"], **args.inputs["pinned"]}
        return args.name, outputs

    def call(self, args: mocks.MockCallArgs) -> Any:
        raise AssertionError(args)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    def locate(name: str) -> Any:
        executables = {program: Path("/tools", program) for program in ("initdb", "postgres", name)}
        receipt = SimpleNamespace(source="registry", root=".")
        return SimpleNamespace(
            name=name, version="7", root=Path("/tools"), executables=executables, receipt=receipt
        )

    monkeypatch.setattr(resolution, "locate", locate)
    asyncio.set_event_loop(asyncio.new_event_loop())
    recorder = Engine()
    mocks.set_mocks(recorder, project="marketlake", stack="test")
    return recorder


def declare(program: Callable[[], object]) -> None:
    pulumi.runtime.test(program)()


def seen(output: pulumi.Output[Any]) -> list[Any]:
    values: list[Any] = []
    output.apply(values.append)
    return values


def test_a_component_is_a_noun_of_the_package_and_owns_its_children(engine: Engine) -> None:
    declare(lambda: object_store.ObjectStore("store", {"target": TARGET}))
    assert engine.declared["store"].typ == "marketlake:index:ObjectStore"
    assert set(engine.declared) == {"store", "store-root-password", "store-ports", "store-process"}


def test_a_service_gets_its_ports_then_its_process(engine: Engine) -> None:
    declare(lambda: object_store.ObjectStore("store", {"target": TARGET}))
    ports = engine.declared["store-ports"].inputs
    assert (ports["folder"], ports["service"]) == ("/stack", "object-store")
    assert ports["pinned"] == {"api": 7777}
    process = engine.declared["store-process"].inputs
    assert "--address=127.0.0.1:7777" in process["argv"]
    assert opened(process["secret_files"]) == {"root-password": "value-of-store-root-password"}


def test_what_others_need_of_it_says_where_it_is(engine: Engine) -> None:
    outcome: dict[str, list[Any]] = {}

    def program() -> None:
        store = object_store.ObjectStore("store", {"target": TARGET})
        outcome.update(
            endpoint=seen(store.endpoint), service=seen(store.service), key=seen(store.secret_access_key)
        )

    declare(program)
    assert outcome["endpoint"] == ["http://127.0.0.1:7777"]
    assert outcome["key"] == ["value-of-store-root-password"]
    assert outcome["service"] == [
        {
            "name": "object-store",
            "version": "7",
            "address": "http://127.0.0.1:7777",
            "console": "http://127.0.0.1:9001/",
            "health": "http",
            "target": "http://127.0.0.1:7777/minio/health/ready",
            "control": "supervisor:/stack/supervisor/supervisor.sock#object-store",
        }
    ]


def test_secrets_stay_secret_and_the_rest_can_be_read(engine: Engine) -> None:
    outcome: dict[str, Any] = {}

    async def program() -> None:
        store = object_store.ObjectStore("store", {"target": TARGET})
        outcome["secret_access_key"] = await store.secret_access_key.is_secret()
        outcome["endpoint"] = await store.endpoint.is_secret()
        bus = event_bus.EventBus("bus", {"target": TARGET})
        outcome["password"] = await bus.password.is_secret()
        base = database.Database("base", {"target": TARGET, "databases": ["one"]})
        outcome["passwords"] = await base.passwords.is_secret()

    declare(program)
    assert outcome == {"secret_access_key": True, "endpoint": False, "password": True, "passwords": True}
    for name, resource in engine.declared.items():
        if name.endswith("-process"):
            visible = {
                k: v
                for k, v in resource.inputs.items()
                if k not in ("secret_environment", "secret_files", "hidden")
            }
            assert "value-of-" not in str(visible), name


def test_each_database_has_an_owner_with_a_password_of_its_own(engine: Engine) -> None:
    declare(lambda: database.Database("base", {"target": TARGET, "databases": ["one", "two"]}))
    owners = {
        name: (resource.inputs["owner"], opened(resource.inputs["owner_password"]))
        for name, resource in engine.declared.items()
        if resource.typ.endswith(":SqlDatabase")
    }
    assert owners == {
        "base-one": ("one", "value-of-base-one-password"),
        "base-two": ("two", "value-of-base-two-password"),
    }


def test_the_workflow_engine_keeps_its_state_where_it_is_told(engine: Engine) -> None:
    state: workflow_engine.StateDatabaseArgs = {
        "host": "h", "port": 5432.0, "name": "n", "user": "u", "password": "p",  # type: ignore[typeddict-item]
    }  # fmt: skip
    declare(lambda: workflow_engine.WorkflowEngine("engine", {"target": TARGET, "database": state}))
    environment = opened(engine.declared["engine-process"].inputs["secret_environment"])
    assert environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == "postgresql+asyncpg://u:p@h:5432/n"
    assert environment["PREFECT_SERVER_API_AUTH_STRING"] == "marketlake:value-of-engine-password"


def test_observability_knows_its_four_services(engine: Engine) -> None:
    outcome: list[Any] = []
    declare(
        lambda: observability.Observability(
            "seen", {"target": TARGET, "metrics_retention_days": 3, "traces_retention_hours": 5}
        ).services.apply(outcome.append)
    )
    names = [service["name"] for service in outcome[0]]
    assert names == ["metrics-store", "log-store", "trace-store", "telemetry-collector"]
    assert "-retentionPeriod=3d" in engine.declared["seen-metrics-store-process"].inputs["argv"]
    assert "spans: 5h" in engine.declared["seen-trace-store-process"].inputs["files"]["config.yaml"]
    assert "console" not in outcome[0][2], "a build from the registry has no web page"


def lake(**changes: Any) -> data_lake.DataLakeArgs:
    args: Any = {
        "object_store": {"endpoint": "http://s", "access_key_id": "k", "secret_access_key": "s"},
        "event_bus": {"bootstrap_servers": "b:1"},
        "workflow_engine": {"api_url": "http://e/api"},
        "buckets": {"landing": "landing", "lake": "lake", "stand_in": "venue"},
        "topics": {"tasks": "t", "events": "e", "dead_letters": "d", "partitions": 3, "retention_hours": 2},
        "flow": {"work_pool": "pool", "deployment": "collect/it", "entrypoint": "a.b.c", "release": "1"},
    }
    return args | changes  # type: ignore[no-any-return]


def test_the_lake_keeps_every_version_of_what_landed_and_opens_only_the_stand_in(engine: Engine) -> None:
    declare(lambda: data_lake.DataLake("lake", lake()))
    buckets = {
        resource.inputs["bucket"]: (resource.inputs["versioning"], resource.inputs["access"])
        for resource in engine.declared.values()
        if resource.typ.endswith(":Bucket")
    }
    assert buckets == {
        "landing": (True, "private"),
        "lake": (False, "private"),
        "venue": (False, "public-read"),
    }


def test_a_lake_without_a_stand_in_has_no_open_bucket(engine: Engine) -> None:
    outcome: list[Any] = []
    args = lake(buckets={"landing": "landing", "lake": "lake"})
    declare(lambda: data_lake.DataLake("lake", args).stand_in_bucket.apply(outcome.append))
    assert outcome == [None]
    assert "public-read" not in str([resource.inputs for resource in engine.declared.values()])


def test_topics_and_the_flow_are_as_declared(engine: Engine) -> None:
    declare(lambda: data_lake.DataLake("lake", lake()))
    topics = {
        resource.inputs["topic"]: (resource.inputs["partitions"], resource.inputs["config"]["retention.ms"])
        for resource in engine.declared.values()
        if resource.typ.endswith(":Topic")
    }
    assert topics == {"t": (3, "7200000"), "e": (1, "7200000"), "d": (1, "7200000")}
    deployment = engine.declared["lake-deployment"].inputs
    assert (deployment["flow"], deployment["deployment"], deployment["work_pool"]) == (
        "collect",
        "it",
        "pool",
    )


def test_workers_take_the_settings_that_they_are_given(engine: Engine) -> None:
    def program() -> None:
        worker_pool.CollectionWorkers(
            "workers", {"target": TARGET, "environment": "test", "settings": "{}", "replicas": 3}
        )
        worker_pool.WorkflowWorker(
            "worker",
            {
                "target": TARGET,
                "environment": "test",
                "settings": "{}",
                "work_pool": "pool",
                "api_url": "http://e/api",
                "auth_string": "u:p",
            },
        )

    declare(program)
    workers = engine.declared["workers-process"].inputs
    assert (workers["replicas"], opened(workers["secret_files"])) == (3, {"platform.json": "{}"})
    worker = engine.declared["worker-process"].inputs
    assert "--pool=pool" in worker["argv"]
    assert worker["environment"]["PREFECT_API_URL"] == "http://e/api"


def test_a_target_is_found_by_its_kind() -> None:
    found = []
    declare(lambda: found.append(target_of(TARGET)))
    assert isinstance(found[0], HostTarget)
    with pytest.raises(ValueError, match="moon"):
        target_of({**TARGET, "kind": "moon"})  # type: ignore[typeddict-item]
