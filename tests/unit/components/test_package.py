"""The components as a Pulumi package: its schema, and what it makes of what the engine hands it."""

import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pulumi
import pytest
import yaml
from pulumi.errors import InputPropertyError
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

import components
from components.component import Component
from components.package import COMPONENTS, NAME, Package
from stacks.engine.workspace import PROJECT_FOLDER
from tests.unit.components.test_components import Engine, declare, engine, opened, seen

__all__ = ["engine"]

FOLDER = Path(components.__file__).parent
HERE = {
    "kind": "host",
    "host": {"folder": "/stack", "supervisor": "/stack/s.sock", "ports": {"object-store": {"api": 7777.0}}},
}


@pytest.fixture(scope="module")
def package() -> Package:
    return Package()


@pytest.fixture(scope="module")
def schema(package: Package) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(package.schema or "")
    return parsed


def construct(
    package: Package, kind: str, name: str, inputs: Callable[[], dict[str, Any]]
) -> dict[str, list[Any]]:
    """Construct a component as the engine asks for it; what its outputs are, by their names in the schema."""
    outputs: dict[str, list[Any]] = {}

    def program() -> None:
        state = package.construct(name, f"{NAME}:index:{kind}", inputs()).state
        outputs.update({key: seen(value) for key, value in state.items()})

    declare(program)
    return outputs


def own_components() -> Iterator[type[Component]]:
    for subclass in Component.__subclasses__():
        if subclass.__module__.startswith("components."):
            yield subclass


def test_the_package_holds_every_component(schema: dict[str, Any]) -> None:
    assert set(COMPONENTS) == set(own_components())
    assert set(schema["resources"]) == {f"marketlake:index:{component.__name__}" for component in COMPONENTS}
    assert all(resource["isComponent"] for resource in schema["resources"].values())
    assert (schema["name"], schema["version"]) == ("marketlake", "0.1.0")


def test_everything_in_the_schema_is_described_without_the_sources_indentation(
    schema: dict[str, Any],
) -> None:
    described: dict[str, Any] = {}
    for token, resource in schema["resources"].items():
        described[token] = resource
        for part in ("inputProperties", "properties"):
            described |= {f"{token}.{part}.{name}": it for name, it in resource[part].items()}
    for token, declared in schema["types"].items():
        described[token] = declared
        described |= {f"{token}.{name}": it for name, it in declared.get("properties", {}).items()}
        described |= {f"{token}.{it['name']}": it for it in declared.get("enum", [])}
    for place, it in described.items():
        assert it.get("description"), f"{place} has no docstring"
        assert "\n " not in it["description"], place


def test_what_a_component_cannot_do_without_is_required(schema: dict[str, Any]) -> None:
    required = {
        token.rpartition(":")[2]: set(resource.get("requiredInputs", ()))
        for token, resource in schema["resources"].items()
    }
    assert required == {
        "Host": {"folder"},
        "Namespace": {"namespace", "stack", "kubeconfig"},
        "Observability": {"target"},
        "Database": {"target", "databases"},
        "ObjectStore": {"target"},
        "EventBus": {"target"},
        "WorkflowEngine": {"target", "database"},
        "DataLake": {"objectStore", "eventBus", "workflowEngine", "buckets", "topics", "flow"},
        "WorkflowWorker": {
            "target",
            "environment",
            "settings",
            "workPool",
            "apiUrl",
            "authString",
        },
        "CollectionWorkers": {"target", "environment", "settings"},
    }
    kinds = schema["types"]["marketlake:index:TargetKind"]["enum"]
    assert [kind["value"] for kind in kinds] == ["host", "kubernetes"]
    assert schema["types"]["marketlake:index:HostTargetArgs"]["required"] == ["folder", "supervisor"]


@pytest.mark.parametrize(
    "text",
    [
        (PROJECT_FOLDER / "examples" / "yaml" / "Pulumi.yaml").read_text(),
        *re.findall(r"```yaml\n(.*?)```", (PROJECT_FOLDER / "docs" / "extending.md").read_text(), re.DOTALL),
    ],
    ids=("the example", "the page"),
)
def test_what_is_shown_to_people_fits_the_schema(schema: dict[str, Any], text: str) -> None:
    for name, resource in yaml.safe_load(text)["resources"].items():
        declared = schema["resources"][resource["type"].replace(":", ":index:")]
        given = resource["properties"]
        assert set(declared["requiredInputs"]) <= set(given) <= set(declared["inputProperties"]), name


def test_a_component_gets_whole_numbers_for_the_engines_floats(engine: Engine, package: Package) -> None:
    outputs = construct(package, "ObjectStore", "store", lambda: {"target": HERE, "memoryMib": 512.0})
    process = engine.declared["store-process"].inputs
    assert process["environment"]["GOMEMLIMIT"] == "460MiB"
    assert "--address=127.0.0.1:7777" in process["argv"]
    assert outputs["endpoint"] == ["http://127.0.0.1:7777"]
    assert set(outputs) == {"endpoint", "region", "accessKeyId", "secretAccessKey", "service"}


def test_outputs_and_secrets_within_arguments_arrive_as_such(engine: Engine, package: Package) -> None:
    def inputs() -> dict[str, Any]:
        server = {
            "host": pulumi.Output.from_input("db.example"),
            "port": pulumi.Output.from_input(6432.0),
            "superuser": "admin",
            "password": pulumi.Output.secret("hunter2"),
        }
        return {"target": HERE, "databases": ["notes"], "external": server}

    outputs = construct(package, "Database", "base", inputs)
    assert outputs["port"] == [6432]
    declared = engine.declared["base-notes"].inputs
    assert (declared["host"], declared["port"]) == ("db.example", 6432)
    assert opened(declared["superuser_password"]) == "hunter2"


def test_a_place_on_this_machine_says_what_a_target_needs(engine: Engine, package: Package) -> None:
    outputs = construct(package, "Host", "machine", lambda: {"folder": "/stack", "keepData": True})
    assert set(outputs) == {"folder", "supervisor"}
    assert outputs["folder"] == ["/stack"]
    supervisor = engine.declared["machine-supervisor"].inputs
    assert (supervisor["folder"], supervisor["keep_data"]) == ("/stack", True)


@pytest.mark.parametrize(
    ("inputs", "place", "reason"),
    [
        (dict, "target", "Missing required input 'target'"),
        (lambda: {"target": {"kind": "moon"}}, "target.kind", "Invalid value moon"),
        (lambda: {"target": {"kind": "host", "host": {}}}, "target.host.folder", "Missing required input"),
        (
            lambda: {"target": pulumi.Output.from_input(HERE)},
            "target",
            "`target` has to be written out where it is used",
        ),
    ],
    ids=("missing", "unknown kind", "incomplete", "known too late"),
)
def test_a_wrong_declaration_says_where_it_is_wrong(
    engine: Engine, package: Package, inputs: Callable[[], dict[str, Any]], place: str, reason: str
) -> None:
    with pytest.raises(InputPropertyError) as caught:
        construct(package, "ObjectStore", "store", inputs)
    assert caught.value.property_path == place
    assert reason in caught.value.reason


def test_pulumi_finds_the_projects_environment_beside_the_package() -> None:
    declared = yaml.safe_load((FOLDER / "PulumiPlugin.yaml").read_text())
    runtime = declared["runtime"]
    assert (runtime["name"], runtime["options"]["toolchain"]) == ("python", "pip")
    assert (FOLDER / runtime["options"]["virtualenv"]).resolve() == PROJECT_FOLDER / ".venv"


def test_the_package_is_served_to_the_engine_and_ends_with_it(package: Package) -> None:
    with socket.create_server(("127.0.0.1", 0)) as engine:
        command = [sys.executable, str(FOLDER), f"127.0.0.1:{engine.getsockname()[1]}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout
            with grpc.insecure_channel(f"127.0.0.1:{int(process.stdout.readline())}") as channel:
                stub = provider_pb2_grpc.ResourceProviderStub(channel)
                answer = stub.GetSchema(provider_pb2.GetSchemaRequest(version=0), timeout=60)
            assert process.poll() is None
            engine.close()
            process.wait(timeout=30)
        finally:
            process.kill()
            process.communicate()
    assert answer.schema == package.schema


def test_what_pulumi_starts_is_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[Any, list[str]]] = []
    monkeypatch.setattr("pulumi.provider.main", lambda *told: served.append(told))
    monkeypatch.setattr("sys.argv", ["components", "the-engine"])
    runpy.run_path(str(FOLDER), run_name="__main__")
    ((package, arguments),) = served
    assert isinstance(package, Package)
    assert arguments == ["the-engine"]
