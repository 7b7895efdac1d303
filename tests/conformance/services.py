"""All services are there, of the pinned version, and open to those alone who may use them."""

import socket
from collections.abc import Callable
from importlib import metadata

import httpx
import psycopg
import pytest
from botocore.exceptions import ClientError
from marketlake.settings import Database

from components import database, event_bus, object_store
from components.observability import collector, stores
from components.service import Tool
from tests.conformance.holdings import SERVICES
from tests.conformance.platform import Platform
from tests.provisioning import s3
from toolchain.bom import load_bom

_OF_THE_BILL = (
    database.database_service(),
    object_store.object_store_service(),
    event_bus.event_bus_service(),
    stores.metrics_store_service(),
    stores.log_store_service(),
    stores.trace_store_service(),
    collector.telemetry_collector_service(),
)


class ServicePromises:
    """What is true of the services of a platform that is up."""

    def test_every_service_is_up_healthy_and_of_the_pinned_version(self, platform: Platform) -> None:
        states = {state["name"]: state for state in platform.asked("status")["services"]}
        assert set(states) == SERVICES
        assert all(state["healthy"] for state in states.values()), states
        assert all(state["version"] for state in states.values())
        assert all(state["processes"] >= 1 for state in states.values()), states
        for service in _OF_THE_BILL:
            assert isinstance(service.program, Tool)
            pinned = load_bom().tool(service.program.name).version
            # A build from a registry may carry more than the version: of what it stands in for.
            assert states[service.name]["version"].partition("-")[0] == pinned, service.name
        for name, distribution in (("workflow-engine", "prefect"), ("collection-worker", "marketlake")):
            assert states[name]["version"] == metadata.version(distribution)

    def test_the_memory_of_every_service_is_seen(self, platform: Platform) -> None:
        states = platform.status_with_memory()
        assert all(state["memory_bytes"] > 1_000_000 for state in states), states

    def test_the_ports_of_the_platform_file_answer(self, platform: Platform) -> None:
        asked = 0
        for service in platform.settings.services:
            if service.target and service.health == "tcp":
                host, _, port = service.target.rpartition(":")
                with socket.create_connection((host, int(port)), timeout=5):
                    asked += 1
        assert asked >= 2

    def test_anonymous_requests_reach_the_stand_in_venue_only(self, platform: Platform) -> None:
        endpoint = platform.settings.object_store.endpoint
        venue = platform.settings.venues["binance"]
        listing = httpx.get(f"{endpoint}/{venue.bucket}", params={"prefix": "data/spot/", "max-keys": "2"})
        assert listing.status_code == 200
        assert "<ListBucketResult" in listing.text
        assert httpx.get(f"{endpoint}/landing").status_code == 403
        assert httpx.put(f"{endpoint}/{venue.bucket}/data/x", content=b"x").status_code == 403

    @pytest.mark.parametrize("path", ["flows/filter", "deployments/filter"])
    def test_the_workflow_engine_wants_credentials(self, platform: Platform, path: str) -> None:
        url = f"{platform.settings.workflow_engine.api_url}/{path}"
        assert httpx.post(url, json={}).status_code == 401

    def test_the_runtime_may_use_its_buckets_and_no_more(self, platform: Platform) -> None:
        store = platform.settings.object_store
        client = s3(store)
        listed = client.list_objects_v2(Bucket=store.landing_bucket, MaxKeys=1)["Contents"]
        version = client.list_object_versions(Bucket=store.landing_bucket, MaxKeys=1)["Versions"][0]
        assert listed
        forbidden = {
            "another bucket": lambda: client.create_bucket(Bucket="not-of-the-runtime"),
            "removing a bucket": lambda: client.delete_bucket(Bucket=store.landing_bucket),
            "opening a bucket": lambda: client.put_bucket_policy(
                Bucket=store.landing_bucket, Policy=_everybody(store.landing_bucket)
            ),
            "suspending versions": lambda: client.put_bucket_versioning(
                Bucket=store.landing_bucket, VersioningConfiguration={"Status": "Suspended"}
            ),
            "removing a version": lambda: client.delete_object(
                Bucket=store.landing_bucket, Key=version["Key"], VersionId=version["VersionId"]
            ),
        }
        refused = {what: _refusal(attempt) for what, attempt in forbidden.items()}
        assert refused == dict.fromkeys(forbidden, "AccessDenied")

    def test_the_runtime_owns_its_database_and_sees_no_other(self, platform: Platform) -> None:
        own = platform.settings.database
        with psycopg.connect(own.dsn) as connection:
            rights = connection.execute(
                "select rolsuper, rolcreatedb, rolcreaterole, rolreplication from pg_roles"
                " where rolname = current_user"
            ).fetchone()
        assert rights == (False, False, False, False)
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            _enter(own.model_copy(update={"name": "prefect"}))

    def test_the_flow_is_visible_in_the_workflow_engine(self, platform: Platform) -> None:
        engine = platform.settings.workflow_engine
        assert engine.auth_string
        user, _, password = engine.auth_string.get_secret_value().partition(":")
        answer = httpx.post(f"{engine.api_url}/flow_runs/filter", json={}, auth=(user, password))
        assert "COMPLETED" in {run["state_type"] for run in answer.json()}


def _refusal(attempt: Callable[[], object]) -> str | None:
    """The store's reason; None if it did not refuse."""
    try:
        attempt()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return None


def _enter(database: Database) -> None:
    psycopg.connect(database.dsn, connect_timeout=5).close()


def _everybody(bucket: str) -> str:
    return (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", '
        f'"Action": "s3:GetObject", "Resource": "arn:aws:s3:::{bucket}/*"}}]}}'
    )
