"""What `pulumi up` puts into the servers (topics, buckets), made directly for tests of the runtime."""

import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import boto3
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from marketlake.infrastructure.bus.connection import client_configuration
from marketlake.settings import EventBus, ObjectStore


def own_topics(bus: EventBus, *, partitions: int = 4) -> EventBus:
    """The bus with topics of its own, so that tests on one broker do not meet."""
    suffix = secrets.token_hex(4)
    own = bus.model_copy(
        update={
            "tasks_topic": f"tasks-{suffix}",
            "events_topic": f"events-{suffix}",
            "dead_letters_topic": f"dead-{suffix}",
        }
    )
    admin = AdminClient(client_configuration(bus, client_id="provisioning"))
    names = (own.tasks_topic, own.events_topic, own.dead_letters_topic)
    for created in admin.create_topics([NewTopic(name, partitions, 1) for name in names]).values():
        created.result(30)
    return own


def own_buckets(store: ObjectStore) -> ObjectStore:
    """The store with a versioned landing bucket and a lake bucket of its own."""
    suffix = secrets.token_hex(4)
    own = store.model_copy(update={"landing_bucket": f"landing-{suffix}", "lake_bucket": f"lake-{suffix}"})
    client = s3(store)
    for bucket in (own.landing_bucket, own.lake_bucket):
        client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=own.landing_bucket, VersioningConfiguration={"Status": "Enabled"})
    return own


def s3(store: ObjectStore) -> Any:
    """A client of the object store with all rights."""
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name=store.region,
        aws_access_key_id=store.access_key_id,
        aws_secret_access_key=store.secret_access_key.get_secret_value(),
    )


@contextmanager
def reading(bus: EventBus, topic: str) -> Iterator[Consumer]:
    """A consumer that reads a topic from its beginning, in no group."""
    consumer = Consumer(
        client_configuration(bus, client_id="reader")
        | {"group.id": f"reader-{uuid4()}", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    try:
        yield consumer
    finally:
        consumer.close()


def messages(bus: EventBus, topic: str, *, at_least: int = 0, within_s: float = 15.0) -> list[Any]:
    """What lies in a topic; waits until there are so many."""
    found: list[Any] = []
    with reading(bus, topic) as consumer:
        quiet_polls = 0
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            message = consumer.poll(0.25)
            if message is not None and not message.error():
                found.append(message)
                quiet_polls = 0
            else:
                quiet_polls += 1
            if len(found) >= at_least and quiet_polls >= 3:
                break
    return found


def texts(found: Iterable[Any]) -> list[str]:
    """The values of messages as text, sorted."""
    return sorted(message.value().decode() for message in found)
