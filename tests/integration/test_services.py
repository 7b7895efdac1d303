"""The servers as they are deployed: who gets in, what they remember, where they listen."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import httpx
import psutil
import psycopg
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from marketlake.settings import Database, EventBus, ObjectStore, Telemetry, WorkflowEngine

from components.database import SUPERUSER
from components.providers import sql_database
from components.providers.base import ResourceError, UnreachableError
from components.providers.sql_database import SqlDatabaseInputs, SqlDatabaseProvider
from components.supervision.installation import install, run_setup
from components.supervision.sockets import any_free
from tests import servers


def connect(database: Database, **changes: object) -> "psycopg.Connection[tuple[object, ...]]":
    known = {
        "host": database.host,
        "port": database.port,
        "user": database.user,
        "password": database.password.get_secret_value(),
        "dbname": database.name,
    }
    return psycopg.connect(**{**known, **changes}, connect_timeout=5)  # type: ignore[arg-type]


def test_postgres_refuses_a_wrong_password_and_other_peoples_databases(
    postgres: Database, postgres_server: servers.Postgres
) -> None:
    other = postgres_server.create_database(f"other_{uuid4().hex[:8]}")
    connect(other).close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(other, password="wrong")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect(other, dbname=postgres.name)


def test_minio_refuses_who_has_no_key(minio: ObjectStore) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=minio.endpoint,
        region_name=minio.region,
        aws_access_key_id=minio.access_key_id,
        aws_secret_access_key="wrong-wrong-wrong",
        config=Config(retries={"max_attempts": 1}),
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_buckets()


@pytest.mark.parametrize(
    "login",
    [{}, {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "marketlake"}],
    ids=["no login", "wrong password"],
)
def test_kafka_refuses_who_cannot_log_in(kafka: EventBus, login: dict[str, str]) -> None:
    refused = {"sasl.password": "wrong", **login} if login else {}
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0, **refused})
    with pytest.raises(KafkaException):
        client.list_topics(timeout=3)


def test_prefect_tells_its_health_to_everybody_and_nothing_else(prefect: WorkflowEngine) -> None:
    assert httpx.get(f"{prefect.api_url}/health").status_code == 200
    assert httpx.post(f"{prefect.api_url}/work_pools/filter", json={}).status_code == 401


def test_the_stores_of_metrics_and_logs_ask_for_a_password(telemetry: Telemetry) -> None:
    assert telemetry.password is not None
    login = (str(telemetry.username), telemetry.password.get_secret_value())
    for url in (
        f"{telemetry.metrics_url}/api/v1/labels",
        f"{telemetry.logs_url}/select/logsql/query?query=*&limit=1",
    ):
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, auth=login).status_code == 200


def test_what_is_sent_to_the_collector_arrives_in_all_three_stores(telemetry: Telemetry) -> None:
    assert telemetry.password is not None
    login = (str(telemetry.username), telemetry.password.get_secret_value())
    name, trace, now = f"svc-{uuid4().hex[:8]}", uuid4().hex, time.time_ns()
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": name}}]}
    span = {"traceId": trace, "spanId": trace[:16], "name": "work", "kind": 1}
    span |= {"startTimeUnixNano": str(now - 10**6), "endTimeUnixNano": str(now)}
    point = {"asDouble": 5, "timeUnixNano": str(now), "startTimeUnixNano": str(now - 10**9)}
    metric = {
        "name": "things",
        "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": [point]},
    }
    record = {"timeUnixNano": str(now), "body": {"stringValue": "hello"}, "traceId": trace}
    bodies = {
        "traces": {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]},
        "metrics": {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}]},
        "logs": {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]},
    }
    for signal, body in bodies.items():
        assert httpx.post(f"{telemetry.otlp_endpoint}/v1/{signal}", json=body).status_code == 200

    def arrived(url: str, parameters: dict[str, str], expected: str) -> None:
        answer = ""
        deadline = time.monotonic() + 60
        while expected not in answer and time.monotonic() < deadline:
            answer = httpx.get(url, params=parameters, auth=login).text
            time.sleep(0.2)
        assert expected in answer

    arrived(f"{telemetry.traces_url}/api/traces/{trace}", {}, '"operationName":"work"')
    arrived(f"{telemetry.logs_url}/select/logsql/query", {"query": f'service.name:"{name}"'}, trace)
    arrived(
        f"{telemetry.metrics_url}/api/v1/query", {"query": f'things_total{{service_name="{name}"}}'}, '"5"'
    )


def test_a_secret_in_anybodys_log_does_not_reach_the_store(telemetry: Telemetry) -> None:
    assert telemetry.password is not None
    login = (str(telemetry.username), telemetry.password.get_secret_value())
    name = f"svc-{uuid4().hex[:8]}"
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": name}}]}
    leaks = (
        "password=hunter2-a",
        "Authorization: Basic aHVudGVyMi1iaHVudGVyMg==",
        "postgresql://u:hunter2-c@host/db",
    )
    records = [
        {"timeUnixNano": str(time.time_ns()), "body": {"stringValue": f"here {leak} there"}} for leak in leaks
    ]
    hidden = {"key": "client_secret", "value": {"stringValue": "hunter2-d"}}
    records.append(
        {"timeUnixNano": str(time.time_ns()), "body": {"stringValue": "last one"}, "attributes": [hidden]}
    )
    body = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}
    assert httpx.post(f"{telemetry.otlp_endpoint}/v1/logs", json=body).status_code == 200
    found: list[str] = []
    deadline = time.monotonic() + 60
    while len(found) < len(records) and time.monotonic() < deadline:
        query = {"query": f'service.name:"{name}"'}
        found = httpx.get(
            f"{telemetry.logs_url}/select/logsql/query", params=query, auth=login
        ).text.splitlines()
        time.sleep(0.2)
    assert len(found) == len(records)
    assert all("there" in line or "last one" in line for line in found)
    assert not [line for line in found if "hunter2" in line or "aHVudGVy" in line]


def test_no_server_listens_beyond_loopback(
    postgres: Database, minio: ObjectStore, kafka: EventBus, prefect: WorkflowEngine, telemetry: Telemetry
) -> None:
    own = [psutil.Process(), *psutil.Process().children(recursive=True)]
    heard = [
        connection.laddr.ip
        for process in own
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(heard) >= 10
    assert set(heard) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def _once_recovered(
    connecting: Callable[[], "psycopg.Connection[tuple[object, ...]]"],
) -> "psycopg.Connection[tuple[object, ...]]":
    """PostgreSQL takes connections, and refuses them, until its log is replayed."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return connecting()
        except psycopg.OperationalError as error:
            recovers = any(text in str(error) for text in ("starting up", "not yet accepting connections"))
            if not recovers or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


@pytest.fixture
def own_postgres() -> Iterator[servers.Postgres]:
    with servers.server_folder() as folder, servers.postgres(folder) as server:
        yield server


def test_killed_postgres_comes_back_with_what_was_committed(own_postgres: servers.Postgres) -> None:
    database = own_postgres.create_database("survivor")
    with connect(database) as connection:
        connection.execute("CREATE TABLE t AS SELECT 42 AS n")
    own_postgres.server.kill()
    own_postgres.server.start()
    with _once_recovered(lambda: connect(database)) as connection:
        assert connection.execute("SELECT n FROM t").fetchone() == (42,)


def test_data_that_outlived_its_secrets_takes_new_ones(own_postgres: servers.Postgres) -> None:
    server = own_postgres.server
    server.stop()
    old = own_postgres.superuser_password
    text = server.program.secret_files["superuser.sql"].replace(old, "entirely-new")
    renewed = server.program.model_copy(update={"secret_files": {"superuser.sql": text}})
    install(renewed)
    run_setup(renewed)
    server.start()
    login = {"host": "127.0.0.1", "port": server.ports["sql"], "user": SUPERUSER, "dbname": "postgres"}
    _once_recovered(lambda: psycopg.connect(**login, password="entirely-new")).close()  # type: ignore[arg-type]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**login, password=old)  # type: ignore[arg-type]


def declaration(server: servers.Postgres, **changes: object) -> SqlDatabaseInputs:
    name = f"db_{uuid4().hex[:8]}"
    fields = {
        "version": "1",
        "host": "127.0.0.1",
        "port": server.server.ports["sql"],
        "superuser": SUPERUSER,
        "superuser_password": server.superuser_password,
        "name": name,
        "owner": name,
        "owner_password": "first",
    }
    return SqlDatabaseInputs.model_validate(fields | changes)


def reached(declared: SqlDatabaseInputs) -> Database:
    return Database(
        host=declared.host,
        port=declared.port,
        name=declared.name,
        user=declared.owner,
        password=declared.owner_password,  # type: ignore[arg-type]
    )


def test_a_database_is_made_seen_changed_and_dropped(postgres_server: servers.Postgres) -> None:
    provider, declared = SqlDatabaseProvider(), declaration(postgres_server)
    assert provider.observe(declared) is None
    result = provider.create(declared.model_dump())
    assert result.id == declared.name
    assert provider.observe(declared) == {}, "nothing drifted"
    rotated = declared.model_copy(update={"owner_password": "second"})
    provider.apply(rotated)
    with connect(reached(rotated)) as used:
        with pytest.raises(psycopg.OperationalError):
            connect(reached(declared))
        provider.remove(rotated)
        assert used is not None
    assert provider.observe(rotated) is None
    provider.remove(rotated)


def test_a_database_that_a_killed_run_left_is_adopted(postgres_server: servers.Postgres) -> None:
    declared = declaration(postgres_server)
    SqlDatabaseProvider().apply(declared)
    SqlDatabaseProvider().apply(declared)
    connect(reached(declared)).close()


def test_a_wrong_superuser_is_told_with_a_remedy(postgres_server: servers.Postgres) -> None:
    with pytest.raises(
        ResourceError, match=r"refuses the password of 'postgres'.*`pulumi up --refresh` sets it"
    ) as told:
        SqlDatabaseProvider().apply(declaration(postgres_server, superuser_password="wrong-one"))
    assert "wrong-one" not in str(told.value)


def test_what_postgres_refuses_is_told(postgres_server: servers.Postgres) -> None:
    postgres_server.create_database("plain")
    declared = declaration(postgres_server)
    SqlDatabaseProvider().apply(declared)
    powerless = declaration(postgres_server, superuser=declared.owner, superuser_password="first")
    with pytest.raises(ResourceError, match="permission denied"):
        SqlDatabaseProvider().apply(powerless)


def test_a_server_that_is_away_is_unreachable(
    postgres_server: servers.Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_database, "REFRESH_TIMEOUT_S", 0.3)
    with pytest.raises(UnreachableError, match="did not answer"):
        SqlDatabaseProvider().observe(declaration(postgres_server, port=any_free()))


def test_a_second_server_on_the_same_data_is_refused_and_harms_nothing(
    own_postgres: servers.Postgres, tmp_path: Path
) -> None:
    database = own_postgres.create_database("first")
    with pytest.raises(Exception, match=r"(?s)lock file .*already exists|another (postmaster|server)"):
        run_setup(own_postgres.server.program)
    connect(database).close()
