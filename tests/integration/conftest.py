"""Real servers, started once for all integration tests; a test that hurts a server starts its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from marketlake.settings import Database, EventBus, ObjectStore, Settings, Telemetry, WorkflowEngine

from tests import servers

TIMEOUT_S = 600
"""For a test and its fixtures: a busy machine needs two minutes to start all servers for the first one."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """Where all session-wide servers keep their data."""
    with servers.server_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_server(servers_folder: Path) -> Iterator[servers.Postgres]:
    """A PostgreSQL server; `create_database` makes more databases in it."""
    with servers.postgres(servers_folder) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(postgres_server: servers.Postgres) -> Database:
    """The database ``marketlake``, empty at first."""
    return postgres_server.create_database("marketlake")


@pytest.fixture(scope="session")
def minio(servers_folder: Path) -> Iterator[ObjectStore]:
    """An object store without buckets."""
    with servers.minio(servers_folder) as (_, settings):
        yield settings


@pytest.fixture(scope="session")
def kafka(servers_folder: Path) -> Iterator[EventBus]:
    """An event bus without topics."""
    with servers.kafka(servers_folder) as (_, settings):
        yield settings


@pytest.fixture(scope="session")
def prefect(servers_folder: Path, postgres_server: servers.Postgres) -> Iterator[WorkflowEngine]:
    """A Prefect server without work pools."""
    state = postgres_server.create_database("prefect")
    with servers.prefect(servers_folder, state) as (_, settings):
        yield settings


@pytest.fixture(scope="session")
def telemetry(servers_folder: Path) -> Iterator[Telemetry]:
    """The collector and the three stores behind it."""
    with servers.telemetry(servers_folder) as (_, settings):
        yield settings


@pytest.fixture(scope="session")
def settings(
    minio: ObjectStore, kafka: EventBus, postgres: Database, prefect: WorkflowEngine, telemetry: Telemetry
) -> Settings:
    """All servers together. There are no buckets, topics, tables, work pools or deployments in them."""
    return Settings(
        environment="test",
        object_store=minio,
        event_bus=kafka,
        database=postgres,
        workflow_engine=prefect,
        telemetry=telemetry,
    )
