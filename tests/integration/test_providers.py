"""The dynamic resources against the real servers: create, adopt, see drift, repair, replace, delete."""

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from marketlake.settings import EventBus, ObjectStore, WorkflowEngine

from components.providers.base import Provider, ResourceError
from components.providers.bucket import BucketProvider
from components.providers.flow_deployment import FlowDeploymentProvider
from components.providers.store_user import StoreUserProvider
from components.providers.topic import TopicProvider
from components.providers.work_pool import WorkPoolProvider
from tests import provisioning


class Recorded:
    """A resource as Pulumi's engine handles it: checked, created, refreshed, compared, updated, deleted."""

    def __init__(self, provider: Provider[Any, Any], **declared: Any) -> None:
        self.provider = provider
        created = provider.create(self.checked(declared))
        self.id, self.outputs = created.id, self.stored(created.outs)

    def checked(self, declared: dict[str, Any]) -> dict[str, Any]:
        result = self.provider.check({}, {**declared, "version": "1"})
        assert not result.failures, [(failure.property, failure.reason) for failure in result.failures]
        return self.stored(result.inputs)

    def refresh(self) -> bool:
        """Whether it still exists; what is recorded of it is what is there now."""
        live = self.provider.read(self.id, dict(self.outputs))
        if live.id:
            self.outputs = self.stored(live.outs)
        return bool(live.id)

    def declare(self, **declared: Any) -> list[str] | None:
        """Bring it to a declaration: None if that changes nothing, else the properties that replace it."""
        news = self.checked(declared)
        diff = self.provider.diff(self.id, dict(self.outputs), dict(news))
        if not diff.changes:
            return None
        if diff.replaces:
            assert diff.delete_before_replace
            self.provider.delete(self.id, dict(self.outputs))
            created = self.provider.create(news)
            self.id, self.outputs = created.id, self.stored(created.outs)
        else:
            self.outputs = self.stored(self.provider.update(self.id, dict(self.outputs), news).outs)
        return list(diff.replaces or [])

    def delete(self) -> None:
        self.provider.delete(self.id, dict(self.outputs))

    @staticmethod
    def stored(properties: dict[str, Any] | None) -> dict[str, Any]:
        """What goes through Pulumi's state: JSON, in which None is absent."""
        return {key: value for key, value in json.loads(json.dumps(properties)).items() if value is not None}


# ---------------------------------------------------------------------------------------------------- buckets


@pytest.fixture
def store(minio: ObjectStore) -> dict[str, str]:
    return {
        "endpoint": minio.endpoint,
        "access_key_id": minio.access_key_id,
        "secret_access_key": minio.secret_access_key.get_secret_value(),
    }


@pytest.fixture
def s3(minio: ObjectStore) -> Any:
    return provisioning.s3(minio)


def test_a_bucket_has_what_is_declared_and_a_repetition_changes_nothing(store: Any, s3: Any) -> None:
    declared = {"connection": store, "bucket": "bucket-a", "versioning": True, "tags": {"owner": "tests"}}
    bucket = Recorded(BucketProvider(), **declared)

    assert s3.get_bucket_versioning(Bucket="bucket-a")["Status"] == "Enabled"
    assert s3.get_bucket_tagging(Bucket="bucket-a")["TagSet"] == [{"Key": "owner", "Value": "tests"}]
    assert bucket.refresh()
    assert bucket.declare(**declared) is None
    bucket.delete()
    assert not bucket.refresh()


def test_a_bucket_that_a_killed_run_left_is_adopted_with_its_objects(store: Any, s3: Any) -> None:
    s3.create_bucket(Bucket="bucket-left")
    s3.put_object(Bucket="bucket-left", Key="kept", Body=b"1")

    Recorded(BucketProvider(), connection=store, bucket="bucket-left", versioning=True)

    assert s3.get_bucket_versioning(Bucket="bucket-left")["Status"] == "Enabled"
    assert s3.get_object(Bucket="bucket-left", Key="kept")["Body"].read() == b"1"


def test_a_stand_in_venue_is_listed_and_read_by_anybody_and_written_by_nobody(store: Any, s3: Any) -> None:
    bucket = Recorded(BucketProvider(), connection=store, bucket="bucket-open", access="public-read")
    s3.put_object(Bucket="bucket-open", Key="data/a.zip", Body=b"zip")
    base = f"{store['endpoint']}/bucket-open"

    with urllib.request.urlopen(f"{base}?prefix=data/") as listing:  # noqa: S310 - loopback
        assert b"<Key>data/a.zip</Key>" in listing.read()
    assert httpx.get(f"{base}/data/a.zip").content == b"zip"
    assert httpx.put(f"{base}/data/b.zip", content=b"x").status_code == 403

    bucket.declare(connection=store, bucket="bucket-open", access="private")
    assert httpx.get(f"{base}/data/a.zip").status_code == 403


def test_drift_of_a_bucket_is_seen_and_repaired(store: Any, s3: Any) -> None:
    declared = {
        "connection": store, "bucket": "bucket-drift", "versioning": True, "access": "public-read",
        "tags": {"a": "b"},
    }  # fmt: skip
    bucket = Recorded(BucketProvider(), **declared)
    s3.put_bucket_versioning(Bucket="bucket-drift", VersioningConfiguration={"Status": "Suspended"})
    s3.delete_bucket_tagging(Bucket="bucket-drift")
    statement = {
        "Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": ["s3:GetObject"],
        "Resource": ["arn:aws:s3:::bucket-drift/*"],
    }  # fmt: skip
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    s3.put_bucket_policy(Bucket="bucket-drift", Policy=json.dumps(policy))

    assert bucket.refresh()
    seen = {key: bucket.outputs[key] for key in ("versioning", "access", "tags")}
    assert seen == {"versioning": False, "access": "custom", "tags": {}}
    assert bucket.declare(**declared) == []
    assert bucket.refresh()
    assert bucket.declare(**declared) is None

    bucket.declare(connection=store, bucket="bucket-drift")
    assert bucket.refresh()
    seen = {key: bucket.outputs[key] for key in ("versioning", "access", "tags")}
    assert seen == {"versioning": False, "access": "private", "tags": {}}


@pytest.mark.parametrize("mended", [True, False], ids=["after it was mended", "as it was found"])
def test_a_bucket_whose_policy_was_changed_by_hand_can_still_be_destroyed(
    store: Any, s3: Any, mended: bool
) -> None:
    name = f"bucket-by-hand-{str(mended).lower()}"
    declared = {"connection": store, "bucket": name, "access": "public-read"}
    bucket = Recorded(BucketProvider(), **declared)
    everything = {
        "Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": ["s3:*"], "Resource": [f"arn:aws:s3:::{name}/*"],
    }  # fmt: skip
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [everything]}))
    assert bucket.refresh()
    assert BucketProvider().check({}, bucket.outputs).failures, "nobody could declare what was found"
    assert bucket.refresh(), "the next `make up` refreshes what this one recorded"
    if mended:
        assert bucket.declare(**declared) == []
        assert bucket.refresh()
        assert bucket.outputs["access"] == "public-read"
    bucket.delete()
    assert not bucket.refresh()


def test_a_bucket_with_objects_is_only_destroyed_when_told_so(store: Any, s3: Any) -> None:
    bucket = Recorded(BucketProvider(), connection=store, bucket="bucket-full", versioning=True)
    for body in (b"1", b"2"):
        s3.put_object(Bucket="bucket-full", Key="a", Body=body)
    s3.delete_object(Bucket="bucket-full", Key="a")

    with pytest.raises(ResourceError, match=r"'bucket-full' still holds objects.*force_destroy"):
        bucket.delete()
    bucket.declare(connection=store, bucket="bucket-full", versioning=True, force_destroy=True)
    bucket.delete()

    assert "bucket-full" not in {item["Name"] for item in s3.list_buckets()["Buckets"]}
    bucket.delete()  # gone already: no error


def test_another_name_is_another_bucket(store: Any, s3: Any) -> None:
    bucket = Recorded(BucketProvider(), connection=store, bucket="bucket-old")

    assert bucket.declare(connection=store, bucket="bucket-new") == ["bucket"]
    names = {item["Name"] for item in s3.list_buckets()["Buckets"]}
    assert "bucket-new" in names
    assert "bucket-old" not in names


def test_a_wrong_key_is_told_without_the_key(store: Any) -> None:
    wrong = {**store, "secret_access_key": "not-the-password"}

    with pytest.raises(ResourceError, match="refuses") as caught:
        Recorded(BucketProvider(), connection=wrong, bucket="bucket-x")
    assert "not-the-password" not in str(caught.value)


# ---------------------------------------------------------------------------------------- users of the store


def _as(store: dict[str, str], user: str, secret: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=user,
        aws_secret_access_key=secret,
    )


def test_a_user_may_use_its_buckets_and_no_others(store: Any, s3: Any) -> None:
    for bucket in ("own-a", "own-b", "foreign"):
        Recorded(BucketProvider(), connection=store, bucket=bucket, versioning=bucket == "own-a")
    s3.put_object(Bucket="foreign", Key="x", Body=b"x")
    declared = {
        "connection": store,
        "user": "runtime",
        "secret_access_key": "first-key",
        "buckets": ["own-a", "own-b"],
    }
    user = Recorded(StoreUserProvider(), **declared)
    runtime = _as(store, "runtime", "first-key")

    version = runtime.put_object(Bucket="own-a", Key="k", Body=b"1")["VersionId"]
    runtime.put_object(Bucket="own-b", Key="k", Body=b"1")
    assert runtime.get_object(Bucket="own-a", Key="k", VersionId=version)["Body"].read() == b"1"
    assert [item["Key"] for item in runtime.list_objects_v2(Bucket="own-b")["Contents"]] == ["k"]
    runtime.delete_object(Bucket="own-b", Key="k")
    for forbidden in (
        lambda: runtime.get_object(Bucket="foreign", Key="x"),
        lambda: runtime.list_objects_v2(Bucket="foreign"),
        lambda: runtime.put_object(Bucket="foreign", Key="y", Body=b""),
        lambda: runtime.delete_object(Bucket="own-a", Key="k", VersionId=version),
        lambda: runtime.create_bucket(Bucket="more"),
        lambda: runtime.put_bucket_versioning(
            Bucket="own-a", VersioningConfiguration={"Status": "Suspended"}
        ),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            forbidden()

    assert user.refresh()
    assert user.declare(**declared) is None
    assert user.declare(**declared | {"secret_access_key": "second-key"}) == []
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        runtime.list_objects_v2(Bucket="own-a")
    assert _as(store, "runtime", "second-key").list_objects_v2(Bucket="own-a")["KeyCount"] == 1

    user.delete()
    assert not user.refresh()
    user.delete()
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        runtime.list_objects_v2(Bucket="own-a")


def test_drift_of_a_users_rights_is_seen_and_repaired(store: Any, s3: Any) -> None:
    s3.create_bucket(Bucket="rights")
    declared = {
        "connection": store,
        "user": "drifter",
        "secret_access_key": "the-key-1",
        "buckets": ["rights"],
    }
    user = Recorded(StoreUserProvider(), **declared)
    Recorded(StoreUserProvider(), **declared | {"buckets": ["rights", "more"]})  # as by hand

    assert user.refresh()
    assert user.outputs["buckets"] == []
    assert user.refresh(), "the next `make up` refreshes what this one recorded"
    assert user.declare(**declared) == []
    assert user.refresh()
    assert user.declare(**declared) is None

    Recorded(StoreUserProvider(), **declared | {"buckets": ["more"]})
    assert user.refresh()
    user.delete()
    assert not user.refresh()


def test_an_administrator_with_a_wrong_key_is_told(store: Any) -> None:
    wrong = {**store, "secret_access_key": "not-the-password"}
    with pytest.raises(ResourceError, match="refuses its administrator's key") as caught:
        Recorded(
            StoreUserProvider(),
            connection=wrong,
            user="nobody",
            secret_access_key="the-key-1",
            buckets=["x-y"],
        )
    assert "not-the-password" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------- topics


@pytest.fixture
def bus(kafka: EventBus) -> dict[str, str]:
    return {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": kafka.security_protocol,
        "sasl_mechanism": kafka.sasl_mechanism or "",
        "username": kafka.username or "",
        "password": kafka.password.get_secret_value() if kafka.password else "",
    }


@pytest.fixture
def client(bus: dict[str, str]) -> dict[str, str]:
    return {
        "bootstrap.servers": bus["bootstrap_servers"],
        "security.protocol": bus["security_protocol"],
        "sasl.mechanism": bus["sasl_mechanism"],
        "sasl.username": bus["username"],
        "sasl.password": bus["password"],
    }


def _partitions(client: dict[str, str], topic: str) -> int | None:
    found = AdminClient(client).list_topics(timeout=10).topics.get(topic)
    return len(found.partitions) if found else None


def test_a_topic_has_what_is_declared_and_a_repetition_changes_nothing(bus: Any, client: Any) -> None:
    declared = {
        "connection": bus, "topic": "topic-a", "partitions": 3, "replication_factor": 1,
        "config": {"retention.ms": "3600000"},
    }  # fmt: skip
    topic = Recorded(TopicProvider(), **declared)

    assert _partitions(client, "topic-a") == 3
    assert topic.refresh()
    assert topic.outputs["config"] == {"retention.ms": "3600000"}
    assert topic.outputs["replication_factor"] == 1
    assert topic.declare(**declared) is None
    topic.delete()
    assert not topic.refresh()
    topic.delete()  # gone already: no error


def test_a_topic_grows_in_place_and_keeps_its_events(bus: Any, client: Any) -> None:
    topic = Recorded(TopicProvider(), connection=bus, topic="topic-grow", partitions=2)
    producer = Producer(client)
    producer.produce("topic-grow", b"event", partition=1)
    assert producer.flush(10) == 0

    assert topic.declare(connection=bus, topic="topic-grow", partitions=5) == []
    assert _partitions(client, "topic-grow") == 5


def test_fewer_partitions_replace_the_topic_and_that_is_said(
    bus: Any, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = Recorded(TopicProvider(), connection=bus, topic="topic-shrink", partitions=4)

    assert topic.declare(connection=bus, topic="topic-shrink", partitions=2) == ["partitions"]
    assert "cannot take partitions away (4 → 2)" in capsys.readouterr().err
    assert _partitions(client, "topic-shrink") == 2


def test_a_topic_that_a_killed_run_left_is_adopted_unless_it_is_too_big(bus: Any, client: Any) -> None:
    Recorded(TopicProvider(), connection=bus, topic="topic-left", partitions=2)

    Recorded(
        TopicProvider(), connection=bus, topic="topic-left", partitions=4, config={"retention.ms": "1000"}
    )
    assert _partitions(client, "topic-left") == 4
    with pytest.raises(ResourceError, match="exists with 4 partitions, 1 are declared"):
        Recorded(TopicProvider(), connection=bus, topic="topic-left", partitions=1)


def test_drift_of_a_topics_configuration_is_seen_and_repaired(bus: Any) -> None:
    declared = {"connection": bus, "topic": "topic-drift", "config": {"retention.ms": "1000"}}
    topic = Recorded(TopicProvider(), **declared)
    foreign = {"connection": bus, "topic": "topic-drift", "config": {"cleanup.policy": "compact"}}
    Recorded(TopicProvider(), **foreign)

    assert topic.refresh()
    assert topic.outputs["config"] == {"cleanup.policy": "compact"}
    assert topic.declare(**declared) == []
    assert topic.refresh()
    assert topic.outputs["config"] == {"retention.ms": "1000"}


def test_a_setting_that_kafka_does_not_know_is_told(bus: Any) -> None:
    with pytest.raises(ResourceError, match=r"retention\.mss"):
        Recorded(TopicProvider(), connection=bus, topic="topic-bad", config={"retention.mss": "1"})


def test_a_wrong_password_is_told_at_once_and_not_shown(bus: Any) -> None:
    began = time.monotonic()
    with pytest.raises(ResourceError, match="refuses the administrator's identity") as caught:
        Recorded(TopicProvider(), connection={**bus, "password": "not-the-password"}, topic="topic-x")
    assert "not-the-password" not in str(caught.value)
    assert time.monotonic() - began < 30


# ----------------------------------------------------------------------- work pools and deployments


@pytest.fixture
def engine(prefect: WorkflowEngine) -> dict[str, str]:
    auth = prefect.auth_string
    return {"api_url": prefect.api_url, "auth_string": auth.get_secret_value() if auth else ""}


@pytest.fixture
def api(engine: dict[str, str]) -> Iterator[httpx.Client]:
    user, _, password = engine["auth_string"].partition(":")
    with httpx.Client(base_url=engine["api_url"], auth=(user, password), timeout=30) as client:
        yield client


def test_a_work_pool_is_created_adopted_repaired_and_deleted(engine: Any, api: httpx.Client) -> None:
    declared = {"connection": engine, "work_pool": "pool-a", "description": "d", "concurrency_limit": 3}
    pool = Recorded(WorkPoolProvider(), **declared)
    assert pool.refresh()
    assert pool.declare(**declared) is None
    Recorded(WorkPoolProvider(), **declared)  # a second run that knows nothing of the first

    api.patch("/work_pools/pool-a", json={"concurrency_limit": 0, "is_paused": True}).raise_for_status()
    assert pool.refresh()
    assert pool.outputs["concurrency_limit"] == 0, "which nobody could declare"
    assert pool.refresh()
    assert pool.declare(**declared) == []
    live = api.get("/work_pools/pool-a").json()
    assert (live["concurrency_limit"], live["is_paused"], live["type"]) == (3, False, "process")

    assert pool.declare(connection=engine, work_pool="pool-a") == []
    assert api.get("/work_pools/pool-a").json()["concurrency_limit"] is None

    pool.delete()
    assert not pool.refresh()
    pool.delete()


def test_a_work_pool_of_another_kind_is_replaced(engine: Any, api: httpx.Client) -> None:
    pool = Recorded(WorkPoolProvider(), connection=engine, work_pool="pool-kind", worker_type="docker")

    assert pool.declare(connection=engine, work_pool="pool-kind") == ["worker_type"]
    assert api.get("/work_pools/pool-kind").json()["type"] == "process"

    Recorded(WorkPoolProvider(), connection=engine, work_pool="pool-kind", worker_type="docker")
    assert api.get("/work_pools/pool-kind").json()["type"] == "docker"


def _deployment(engine: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "connection": engine,
        "flow": "collect",
        "deployment": "collect",
        "entrypoint": "marketlake.workflows.collect.collect",
        "work_pool": "pool-flows",
        "parameters": {"batch_id": "none"},
        "parameter_schema": {"type": "object", "properties": {"batch_id": {"type": "string"}}},
        "job_variables": {"env": {"A": "b"}},
        "concurrency_limit": 2,
        "tags": ["marketlake"],
        "release": "1",
        **more,
    }


def test_a_deployment_is_created_adopted_repaired_and_deleted(engine: Any, api: httpx.Client) -> None:
    Recorded(WorkPoolProvider(), connection=engine, work_pool="pool-flows")
    deployment = Recorded(FlowDeploymentProvider(), **_deployment(engine))
    path = "/deployments/name/collect/collect"
    live = api.get(path).json()
    assert deployment.outputs["deployment_id"] == live["id"]
    assert live["entrypoint"] == "marketlake.workflows.collect.collect"
    assert live["enforce_parameter_schema"] is True
    assert deployment.refresh()
    assert deployment.declare(**_deployment(engine)) is None
    again = Recorded(FlowDeploymentProvider(), **_deployment(engine))
    assert again.outputs["deployment_id"] == live["id"]

    api.patch(
        f"/deployments/{live['id']}", json={"tags": ["other"], "concurrency_limit": 7}
    ).raise_for_status()
    assert deployment.refresh()
    assert deployment.outputs["tags"] == ["other"]
    assert deployment.outputs["concurrency_limit"] == 7
    assert deployment.declare(**_deployment(engine)) == []
    assert deployment.refresh()
    assert deployment.declare(**_deployment(engine)) is None

    unlimited = _deployment(engine)
    del unlimited["concurrency_limit"], unlimited["parameter_schema"]
    assert deployment.declare(**unlimited) == []
    live = api.get(path).json()
    assert live["global_concurrency_limit"] is None
    assert live["enforce_parameter_schema"] is False

    deployment.delete()
    assert api.get(path).status_code == 404
    assert not deployment.refresh()
    deployment.delete()


def test_a_run_with_a_parameter_of_the_wrong_kind_is_refused(engine: Any, api: httpx.Client) -> None:
    Recorded(WorkPoolProvider(), connection=engine, work_pool="pool-flows")
    deployment = Recorded(FlowDeploymentProvider(), **_deployment(engine, deployment="strict"))
    run = f"/deployments/{deployment.outputs['deployment_id']}/create_flow_run"

    assert api.post(run, json={"parameters": {"batch_id": 5}}).status_code == 409
    assert api.post(run, json={"parameters": {"batch_id": "b"}}).status_code == 201


def test_a_deployment_in_a_work_pool_that_does_not_exist_is_told(engine: Any) -> None:
    with pytest.raises(ResourceError, match='Work pool "nowhere" not found'):
        Recorded(FlowDeploymentProvider(), **_deployment(engine, deployment="lost", work_pool="nowhere"))


def test_wrong_credentials_of_the_workflow_engine_are_told_and_not_shown(engine: Any) -> None:
    wrong = {**engine, "auth_string": "marketlake:not-the-password"}

    with pytest.raises(ResourceError, match="HTTP 401") as caught:
        Recorded(WorkPoolProvider(), connection=wrong, work_pool="pool-x")
    assert "not-the-password" not in str(caught.value)
