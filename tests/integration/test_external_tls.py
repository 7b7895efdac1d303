"""External servers over TLS: who has the right certificate is spoken to, by provisioning and by the runtime alike."""

import dataclasses
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from marketlake.infrastructure.bus.connection import client_configuration
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres
from marketlake.settings import Database, EventBus, SslMode

from components import database, event_bus
from components.providers.base import ResourceError
from components.providers.sql_database import SqlDatabaseProvider
from components.providers.topic import TopicProvider
from components.service import File
from components.supervision.installation import inherited_environment
from components.workflow_engine import database_url, workflow_engine_service
from tests import servers
from tests.authority import Authority
from tests.integration.test_providers import Recorded
from tests.tls_gate import Gate

HOST = "localhost"
"""The one name in the database server's certificate."""
ADDRESS = "127.0.0.1"
"""Where they are reached as well, by a name that is not in it."""


PREFECT = """
import asyncio
import sqlalchemy
from prefect.server.database import provide_database_interface
async def look():
    engine = await provide_database_interface().engine()
    async with engine.connect() as connection:
        print("seen", (await connection.execute(sqlalchemy.text("SELECT 7"))).scalar())
asyncio.run(look())
"""
"""What the workflow engine does with its settings first."""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def postgres_logging() -> Iterator[servers.Postgres]:
    """A PostgreSQL server that logs every statement."""
    plain = database.database_service()
    configuration = f"{plain.files['postgresql.conf'].text}log_statement = 'all'\n"
    service = dataclasses.replace(plain, files={**plain.files, "postgresql.conf": File(text=configuration)})
    password = servers.token()
    with (
        servers.server_folder() as folder,
        servers.run(service, folder, secrets={"superuser-password": password}) as server,
    ):
        yield servers.Postgres(server, password)


@pytest.fixture(scope="module")
def gate(postgres_logging: servers.Postgres, authority: Authority) -> Iterator[Gate]:
    """TLS before that server."""
    behind = (ADDRESS, postgres_logging.server.ports["sql"])
    with Gate(behind, *authority.issue(HOST)).open() as gate:
        yield gate


@pytest.fixture
def declared(postgres_logging: servers.Postgres, gate: Gate, authority: Authority) -> dict[str, Any]:
    return {
        "host": HOST,
        "port": gate.port,
        "superuser": database.SUPERUSER,
        "superuser_password": postgres_logging.superuser_password,
        "sslmode": "verify-full",
        "root_certificate": authority.certificate,
        "name": "ledger",
        "owner": "ledger",
        "owner_password": servers.token(),
    }


def runtime(declared: dict[str, Any], **changes: Any) -> Database:
    known = {key: declared[key] for key in ("host", "port", "name", "sslmode", "root_certificate")}
    return Database(**{**known, "user": declared["owner"], "password": declared["owner_password"], **changes})


def test_a_verified_server_is_provisioned_and_used(declared: dict[str, Any], gate: Gate) -> None:
    provisioned = Recorded(SqlDatabaseProvider(), **declared)
    before = gate.passed
    with Postgres(runtime(declared), application="test") as postgres, postgres.session() as session:
        assert session.pgconn.ssl_in_use
    assert gate.passed == before + 1
    assert provisioned.refresh()
    assert provisioned.declare(**declared) is None


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"root_certificate": Authority("another authority").certificate}, "certificate verify failed"),
        ({"root_certificate": None}, "certificate verify failed"),
        ({"host": ADDRESS}, "does not match host name"),
    ],
    ids=["another authority", "what this machine trusts", "another name"],
)
def test_a_server_that_is_not_who_it_should_be_is_told_nothing(
    declared: dict[str, Any], gate: Gate, wrong: dict[str, Any], reason: str
) -> None:
    before = gate.passed
    with pytest.raises(
        ResourceError, match=rf"is not trusted with sslmode verify-full: .*{reason}"
    ) as caught:
        Recorded(SqlDatabaseProvider(), **declared | wrong)
    assert "database.external.rootCertificate" in str(caught.value)
    with (
        Postgres(runtime(declared, **wrong), application="test") as postgres,
        pytest.raises(DatabaseUnavailableError, match=reason),
        postgres.transaction(),
    ):
        pass
    assert gate.passed == before


def test_a_certificate_of_the_right_authority_is_enough_for_verify_ca(declared: dict[str, Any]) -> None:
    assert Recorded(SqlDatabaseProvider(), **declared | {"host": ADDRESS, "sslmode": "verify-ca"}).refresh()


def test_a_server_without_tls_is_refused(postgres_server: servers.Postgres, declared: dict[str, Any]) -> None:
    plain = {
        "port": postgres_server.server.ports["sql"],
        "superuser_password": postgres_server.superuser_password,
    }
    with pytest.raises(ResourceError, match="does not support SSL"):
        Recorded(SqlDatabaseProvider(), **declared | plain)


def test_the_server_is_never_sent_the_owners_password(
    postgres_logging: servers.Postgres, declared: dict[str, Any]
) -> None:
    provisioned = Recorded(SqlDatabaseProvider(), **declared)
    second = servers.token()
    provisioned.declare(**declared | {"owner_password": second})
    log = postgres_logging.server.log.read_text()
    assert 'ALTER ROLE "ledger" LOGIN PASSWORD \'SCRAM-SHA-256$4096:' in log
    assert declared["owner_password"] not in log
    assert second not in log
    with (
        Postgres(runtime(declared), application="test") as postgres,
        pytest.raises(DatabaseUnavailableError, match="password authentication failed"),
        postgres.session(),
    ):
        pass
    with Postgres(runtime(declared, password=second), application="test") as postgres, postgres.session():
        pass


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "not trusted"])
def test_the_workflow_engine_verifies_its_databases_server(
    declared: dict[str, Any], tmp_path: Path, trusted: bool
) -> None:
    Recorded(SqlDatabaseProvider(), **declared)
    root = declared["root_certificate"] if trusted else Authority("another authority").certificate
    service = workflow_engine_service(sslmode=SslMode.VERIFY_FULL, root_certificate=root)
    (name,) = service.files
    (tmp_path / name).write_text(service.files[name].text)
    told = {
        key: value.replace(f"{{file:{name}}}", str(tmp_path / name))
        for key, value in service.environment.items()
        if "_TLS_" in key
    }
    ended = subprocess.run(
        [sys.executable, "-c", PREFECT],
        env={
            **inherited_environment(),
            **told,
            "PREFECT_HOME": str(tmp_path),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url(runtime(declared)),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = ended.stdout + ended.stderr
    assert ("seen 7" in output) is trusted, output
    assert ("CERTIFICATE_VERIFY_FAILED" in output) is not trusted, output


@pytest.fixture(scope="module")
def kafka_tls(authority: Authority) -> Iterator[dict[str, str]]:
    """A broker whose clients' listener speaks TLS; the connection that reaches it."""
    certificate, key = authority.issue(HOST, ADDRESS)
    plain = event_bus.event_bus_service()
    properties = plain.files["server.properties"].text.replace("CLIENT:SASL_PLAINTEXT", "CLIENT:SASL_SSL")
    properties += (
        "ssl.keystore.type=PEM\nssl.keystore.location={file:server.pem}\n"
        "ssl.truststore.type=PEM\nssl.truststore.location={file:root.pem}\n"
    )
    service = dataclasses.replace(
        plain,
        files={
            **plain.files,
            "server.properties": File(text=properties, secret=True),
            "server.pem": File(text=key + certificate, secret=True),
            "root.pem": File(text=authority.certificate),
        },
    )
    password = servers.token()
    with (
        servers.server_folder() as folder,
        servers.run(
            service,
            folder,
            inputs={"cluster-id": event_bus.cluster_id(uuid.uuid4().hex)},
            secrets={"broker-password": servers.token(), "client-password": password},
        ) as server,
    ):
        yield {
            "bootstrap_servers": server.address("client"),
            "security_protocol": "SASL_SSL",
            "root_certificate": authority.certificate,
            "sasl_mechanism": event_bus.SASL_MECHANISM,
            "username": event_bus.CLIENT_USER,
            "password": password,
        }


def test_a_verified_event_bus_is_provisioned_and_used(kafka_tls: dict[str, str]) -> None:
    assert Recorded(TopicProvider(), connection=kafka_tls, topic="verified").refresh()
    client = AdminClient(client_configuration(EventBus(**kafka_tls), client_id="test"))
    assert "verified" in client.list_topics(timeout=10).topics


def test_a_broker_that_is_not_who_it_should_be_is_told_nothing(kafka_tls: dict[str, str]) -> None:
    wrong = {**kafka_tls, "root_certificate": Authority("another authority").certificate}
    with pytest.raises(ResourceError, match=r"is not trusted: .*certificate verify failed"):
        Recorded(TopicProvider(), connection=wrong, topic="unverified")
