"""Servers that were there before: what the platform needs in them is adopted, or created, and survives."""

from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from marketlake.settings import EventBus

from components.database import SUPERUSER
from components.providers.sql_database import SqlDatabaseProvider
from components.providers.topic import TopicProvider
from tests.integration.test_providers import Recorded, bus, client
from tests.servers import LOOPBACK, Postgres, token

__all__ = ["bus", "client"]


@pytest.fixture
def administrator(postgres_server: Postgres) -> dict[str, Any]:
    """What a cloud gives for a superuser: a role that may create databases and roles, and nothing else."""
    name, password = f"cloud_{token()[:6].lower()}".replace("-", "x"), token()
    with _connect(postgres_server, SUPERUSER, postgres_server.superuser_password) as connection:
        connection.execute(f"CREATE ROLE \"{name}\" LOGIN CREATEDB CREATEROLE PASSWORD '{password}'")
    return {
        "host": LOOPBACK,
        "port": postgres_server.server.ports["sql"],
        "superuser": name,
        "superuser_password": password,
    }


def _connect(server: Postgres, user: str, password: str, database: str = "postgres") -> Any:
    return psycopg.connect(
        host=LOOPBACK,
        port=server.server.ports["sql"],
        user=user,
        password=password,
        dbname=database,
        autocommit=True,
    )


def test_a_role_that_is_no_superuser_provisions_a_database(
    postgres_server: Postgres, administrator: dict[str, Any]
) -> None:
    declared = {**administrator, "name": "managed", "owner": "managed", "owner_password": token()}
    database = Recorded(SqlDatabaseProvider(), **declared)
    with _connect(postgres_server, "managed", declared["owner_password"], "managed") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")
    assert database.refresh()
    assert database.declare(**declared) is None
    database.delete()
    assert not database.refresh()


def test_a_database_that_was_given_to_another_role_is_given_back_with_its_rows(
    postgres_server: Postgres, administrator: dict[str, Any]
) -> None:
    declared = {**administrator, "name": "given", "owner": "given", "owner_password": token()}
    database = Recorded(SqlDatabaseProvider(), **declared)
    with _connect(postgres_server, "given", declared["owner_password"], "given") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")
    with _connect(postgres_server, SUPERUSER, postgres_server.superuser_password) as connection:
        connection.execute(f'ALTER DATABASE given OWNER TO "{administrator["superuser"]}"')
    assert database.refresh()
    assert database.outputs["drift"] == f"it belongs to the role {administrator['superuser']!r}"
    assert database.refresh()
    assert database.outputs["owner"] == "given"
    assert database.declare(**declared) == []
    assert database.refresh()
    assert database.declare(**declared) is None
    with _connect(postgres_server, "given", declared["owner_password"], "given") as connection:
        assert connection.execute("SELECT seven FROM kept").fetchone() == (7,)


def test_an_adopted_database_keeps_its_rows_and_gets_its_owners_new_password(
    postgres_server: Postgres, administrator: dict[str, Any]
) -> None:
    declared = {**administrator, "name": "adopted", "owner": "adopted", "owner_password": token()}
    Recorded(SqlDatabaseProvider(), **declared)
    with _connect(postgres_server, "adopted", declared["owner_password"], "adopted") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")

    again = {**declared, "owner_password": token()}  # another stack state: the secret was generated anew
    Recorded(SqlDatabaseProvider(), **again)
    with _connect(postgres_server, "adopted", again["owner_password"], "adopted") as connection:
        assert connection.execute("SELECT seven FROM kept").fetchone() == (7,)


def test_the_copies_of_an_adopted_topic_are_the_clusters_affair(bus: Any, client: Any) -> None:
    admin = AdminClient(client)
    admin.create_topics([NewTopic("topic-theirs", num_partitions=2, replication_factor=1)])[
        "topic-theirs"
    ].result()
    declared = {"connection": bus, "topic": "topic-theirs", "partitions": 4, "replication_factor": None}
    topic = Recorded(TopicProvider(), **declared)
    assert topic.refresh()
    assert topic.outputs.get("replication_factor") is None
    assert topic.outputs["partitions"] == 4
    assert topic.declare(**declared) is None


def test_a_new_topic_gets_as_many_copies_as_the_cluster_gives_by_default(bus: Any, kafka: EventBus) -> None:
    topic = Recorded(TopicProvider(), connection=bus, topic="topic-default", replication_factor=None)
    assert topic.refresh()
    topic.delete()
