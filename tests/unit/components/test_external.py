"""External servers take the place of our own, and nothing else notices."""

from typing import Any

import pulumi
import pytest
from marketlake.settings import Database, SslMode
from pydantic import SecretStr

from components import data_lake, database, event_bus, object_store, workflow_engine
from tests.unit.components.test_components import TARGET, Engine, declare, engine, lake, opened, seen

__all__ = ["engine"]

DATABASE: database.ExternalDatabaseArgs = {"host": "db.example.com", "superuser": "admin", "password": "s"}
STORE: object_store.ExternalObjectStoreArgs = {
    "endpoint": "https://s3.example.com",
    "access_key_id": "AKIA",
    "secret_access_key": "s",
}


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> dict[str, pulumi.ResourceOptions]:
    """The options that each resource was declared with, by name."""
    known: dict[str, pulumi.ResourceOptions] = {}
    original = pulumi.dynamic.Resource.__init__

    def note(self: Any, provider: Any, name: str, props: Any, opts: Any = None) -> None:
        known[name] = opts
        original(self, provider, name, props, opts)

    monkeypatch.setattr(pulumi.dynamic.Resource, "__init__", note)
    return known


def test_no_server_is_deployed_beside_an_external_one(engine: Engine) -> None:
    def program() -> None:
        database.Database("base", {"target": TARGET, "databases": ["one"], "external": DATABASE})
        object_store.ObjectStore("store", {"target": TARGET, "external": STORE})
        event_bus.EventBus("bus", {"target": TARGET, "external": {"bootstrap_servers": "a:1,b:2"}})

    declare(program)
    assert set(engine.declared) == {"base", "base-one", "base-one-password", "store", "bus"}


def test_databases_are_made_in_the_external_server_and_stay_there(
    engine: Engine, options: dict[str, pulumi.ResourceOptions]
) -> None:
    outcome: dict[str, list[Any]] = {}

    def program() -> None:
        base = database.Database("base", {"target": TARGET, "databases": ["one"], "external": DATABASE})
        outcome.update(host=seen(base.host), port=seen(base.port), passwords=seen(base.passwords))

    declare(program)
    inputs = engine.declared["base-one"].inputs
    assert (inputs["host"], inputs["port"], inputs["superuser"]) == ("db.example.com", 5432, "admin")
    assert inputs["sslmode"] == "verify-full", "unless another is asked for"
    assert "root_certificate" not in inputs
    assert opened(inputs["superuser_password"]) == "s"
    assert options["base-one"].retain_on_delete
    assert options["base-one"].deleted_with is None
    assert outcome == {
        "host": ["db.example.com"],
        "port": [5432],
        "passwords": [{"one": "value-of-base-one-password"}],
    }


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        ("https://s3.example.com", "s3.example.com:443"),
        ("http://minio.example.com", "minio.example.com:80"),
        ("http://minio.example.com:9000", "minio.example.com:9000"),
    ],
)
def test_an_external_service_is_shown_with_its_address_and_no_process(
    engine: Engine, endpoint: str, asked: str
) -> None:
    outcome: list[Any] = []

    def program() -> None:
        store = object_store.ObjectStore(
            "store", {"target": TARGET, "external": {**STORE, "endpoint": endpoint}}
        )
        store.service.apply(outcome.append)

    declare(program)
    assert outcome == [
        {"name": "object-store", "version": "external", "address": endpoint, "health": "tcp", "target": asked}
    ]


def test_the_first_broker_of_an_external_cluster_is_asked_for_its_health(engine: Engine) -> None:
    outcome: list[Any] = []

    def program() -> None:
        bus = event_bus.EventBus("bus", {"target": TARGET, "external": {"bootstrap_servers": "a:1,b:2"}})
        target = bus.service.apply(lambda service: service["target"])
        told = (target, bus.bootstrap_servers, bus.security_protocol, bus.username)
        pulumi.Output.all(*told).apply(outcome.append)

    declare(program)
    assert outcome == [["a:1", "a:1,b:2", "SASL_SSL", None]]


def test_secrets_of_external_servers_stay_secret(engine: Engine) -> None:
    outcome: list[bool] = []

    async def program() -> None:
        store = object_store.ObjectStore("store", {"target": TARGET, "external": STORE})
        outcome.append(await store.secret_access_key.is_secret())
        bus = event_bus.EventBus(
            "bus", {"target": TARGET, "external": {"bootstrap_servers": "a:1", "password": "s"}}
        )
        outcome.append(await bus.password.is_secret())

    declare(program)
    assert outcome == [True, True]


def test_a_lake_in_external_servers_makes_no_user_and_leaves_its_buckets_and_topics(
    engine: Engine, options: dict[str, pulumi.ResourceOptions]
) -> None:
    base = lake()
    outcome: list[Any] = []

    def program() -> None:
        made = data_lake.DataLake(
            "lake",
            lake(
                buckets={"landing": "landing", "lake": "lake", "external": True},
                topics={**base["topics"], "external": True, "replication_factor": None},
                runtime_identity={"access_key_id": "R", "secret_access_key": "s"},
            ),
        )
        pulumi.Output.all(made.access_key_id, made.secret_access_key).apply(outcome.append)

    declare(program)
    assert outcome == [["R", "s"]]
    kinds = {resource.typ.rpartition(":")[2] for resource in engine.declared.values()}
    assert "StoreUser" not in kinds
    assert {name for name, opts in options.items() if opts and opts.retain_on_delete} == {
        "lake-landing", "lake-lake", "lake-tasks", "lake-events", "lake-dead-letters",
    }  # fmt: skip
    assert "replication_factor" not in engine.declared["lake-tasks"].inputs, "the cluster's default"


@pytest.mark.parametrize(
    ("sslmode", "root", "told"),
    [
        ("prefer", None, {}),
        ("require", None, {}),
        ("verify-full", None, {"ENABLED": "true", "CHECK_HOSTNAME": "true"}),
        (
            "verify-full",
            "PEM",
            {"ENABLED": "true", "CHECK_HOSTNAME": "true", "CA_FILE": "{file:database-root.crt}"},
        ),
        (
            "verify-ca",
            "PEM",
            {"ENABLED": "true", "CHECK_HOSTNAME": "false", "CA_FILE": "{file:database-root.crt}"},
        ),
    ],
)
def test_the_workflow_engine_verifies_what_the_ledger_verifies(
    sslmode: str, root: str | None, told: dict[str, str]
) -> None:
    mode = SslMode(sslmode)
    service = workflow_engine.workflow_engine_service(sslmode=mode, root_certificate=root)
    prefix = "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_TLS_"
    found = {
        name.removeprefix(prefix): value for name, value in service.environment.items() if prefix in name
    }
    assert found == told
    assert {name: file.text for name, file in service.files.items()} == (
        {"database-root.crt": root} if root else {}
    )
    base = Database(host="h", port=1, name="n", user="u", password=SecretStr("p"), sslmode=mode)
    query = "?ssl=require" if sslmode == "require" else ""
    assert workflow_engine.database_url(base) == f"postgresql+asyncpg://u:p@h:1/n{query}"


def test_what_is_verified_of_an_external_event_bus_is_handed_on(engine: Engine) -> None:
    outcome: list[Any] = []

    def program() -> None:
        bus = event_bus.EventBus(
            "bus", {"target": TARGET, "external": {"bootstrap_servers": "a:1", "root_certificate": "PEM"}}
        )
        bus.root_certificate.apply(outcome.append)

    declare(program)
    assert outcome == ["PEM"]
