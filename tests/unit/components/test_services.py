"""What every service of the platform keeps to, and what each is configured with."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from marketlake.settings import Database

from components import database, event_bus, object_store, worker_pool, workflow_engine
from components.observability import collector, stores
from components.service import Service
from components.supervision import resolution
from components.supervision.program import HostProgram
from components.supervision.resolution import resolve

SERVICES = (
    database.database_service(),
    object_store.object_store_service(),
    event_bus.event_bus_service(),
    workflow_engine.workflow_engine_service(),
    worker_pool.workflow_worker_service(),
    worker_pool.collection_worker_service(),
    stores.metrics_store_service(),
    stores.log_store_service(),
    stores.trace_store_service(),
    collector.telemetry_collector_service(),
)


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    def locate(name: str) -> Any:
        executables = {program: Path("/tools/bin", program) for program in ("initdb", "postgres", name)}
        receipt = SimpleNamespace(source="registry", root=".")
        return SimpleNamespace(
            name=name, version="7", root=Path("/tools"), executables=executables, receipt=receipt
        )

    monkeypatch.setattr(resolution, "locate", locate)


def placed(service: Service) -> HostProgram:
    return resolve(
        service,
        Path("/stack"),
        ports={name: port.preferred for name, port in service.ports.items()},
        inputs=dict.fromkeys(service.inputs, "some-input"),
        secrets={name: f"top-secret-{name}" for name in service.secrets},
    )


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_it_can_be_placed_without_a_secret_in_sight(service: Service) -> None:
    program = placed(service)
    visible = program.model_dump(exclude={"secret_environment", "secret_files", "hidden"})
    assert "top-secret" not in str(visible)
    hidden = str(program.secret_environment) + str(program.secret_files)
    assert all(f"top-secret-{name}" in hidden for name in service.secrets)
    assert not re.search(r"\{(bind|port|address|volume|file|bin|root|memory|input|secret)[:}]", str(program))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_it_listens_on_loopback_only(service: Service) -> None:
    everything = str(placed(service).model_dump())
    assert "0.0.0.0" not in everything  # noqa: S104 - that is what must not be
    for port in service.ports.values():
        assert (
            f"127.0.0.1:{port.preferred}" in everything
            or f"port = {port.preferred}" in everything
            or (f"--port={port.preferred}" in everything and "--host=127.0.0.1" in everything)
        )


def test_no_two_services_prefer_the_same_port_or_carry_the_same_name() -> None:
    ports = [port.preferred for service in SERVICES for port in service.ports.values()]
    assert len(set(ports)) == len(ports)
    assert len({service.name for service in SERVICES}) == len(SERVICES)


def test_the_memory_of_all_services_fits_a_laptop() -> None:
    assert sum(service.resources.memory_mib * service.replicas for service in SERVICES) <= 5 * 1024


def test_every_kafka_listener_asks_for_a_password() -> None:
    properties = placed(event_bus.event_bus_service()).secret_files["server.properties"]
    protocols = re.search(r"listener\.security\.protocol\.map=(.*)", properties)
    assert protocols
    assert {entry.split(":")[1] for entry in protocols[1].split(",")} == {"SASL_PLAINTEXT"}
    for listener in ("client", "controller"):
        login = re.search(rf"listener\.name\.{listener}\.plain\.sasl\.jaas\.config=(.*)", properties)
        assert login
        assert 'password="top-secret-broker-password"' in login[1]
        assert login[1].endswith(";")


def test_a_cluster_id_is_what_kafka_takes_and_always_the_same() -> None:
    first, again, other = (event_bus.cluster_id(name) for name in ("a", "a", "b"))
    assert first == again != other
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", first)


def test_postgres_lets_nobody_in_without_scram() -> None:
    program = placed(database.database_service())
    assert program.files["pg_hba.conf"] == "host all all all scram-sha-256\n"
    assert "unix_socket_directories = ''" in program.files["postgresql.conf"]
    assert program.unprivileged


def test_the_workflow_engine_takes_a_password_with_any_character() -> None:
    url = workflow_engine.database_url(Database(host="h", port=1, name="n", user="u", password="p@/:"))  # type: ignore[arg-type]
    assert url == "postgresql+asyncpg://u:p%40%2F%3A@h:1/n"


def test_nothing_is_reported_to_vendors() -> None:
    assert (
        placed(workflow_engine.workflow_engine_service()).environment["PREFECT_SERVER_ANALYTICS_ENABLED"]
        == "false"
    )
    assert placed(object_store.object_store_service()).environment["MINIO_UPDATE"] == "off"


def test_the_collector_hands_each_signal_to_its_store() -> None:
    program = placed(collector.telemetry_collector_service())
    document = yaml.safe_load(program.secret_files["config.yaml"])
    exporters = {name: pipe["exporters"] for name, pipe in document["service"]["pipelines"].items()}
    assert exporters == {
        "traces": ["otlp_http/traces", "span_metrics", "service_graph"],
        "metrics": ["otlp_http/metrics"],
        "logs": ["otlp_http/logs"],
    }
    used = {
        part for pipe in document["service"]["pipelines"].values() for kind in pipe.values() for part in kind
    }
    defined = {
        part for kind in ("receivers", "processors", "exporters", "connectors") for part in document[kind]
    }
    assert used == defined
    assert (
        document["exporters"]["otlp_http/logs"]["headers"]["Authorization"] == "top-secret-logs-authorization"
    )


def test_the_stores_authorization_is_http_basic() -> None:
    assert stores.basic_authorization("pass") == "Basic bWFya2V0bGFrZTpwYXNz"


def test_workers_are_told_their_settings_by_a_file() -> None:
    program = placed(worker_pool.collection_worker_service(replicas=3))
    assert program.secret_files == {"platform.json": "top-secret-settings"}
    assert (
        program.environment["MARKETLAKE_PLATFORM_FILE"] == "/stack/services/collection-worker/platform.json"
    )
    assert program.process_names == ("collection-worker-0", "collection-worker-1", "collection-worker-2")
