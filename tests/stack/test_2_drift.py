"""What was changed behind Pulumi's back is seen, and mended."""

import boto3
import pytest
from confluent_kafka.admin import AdminClient

from tests.stack.live import LiveStack


@pytest.fixture
def s3(stack: LiveStack):
    store = stack.settings.object_store
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=store.access_key_id,
        aws_secret_access_key=store.secret_access_key.get_secret_value(),
        region_name=store.region,
    )


def test_a_stopped_service_a_removed_topic_and_a_changed_policy_are_seen_and_mended(
    stack: LiveStack, s3
) -> None:
    bus = stack.settings.event_bus
    assert bus.password
    admin = AdminClient(
        {
            "bootstrap.servers": bus.bootstrap_servers,
            "security.protocol": bus.security_protocol,
            "sasl.mechanism": bus.sasl_mechanism,
            "sasl.username": bus.username,
            "sasl.password": bus.password.get_secret_value(),
        }
    )
    admin.delete_topics([bus.dead_letters_topic])[bus.dead_letters_topic].result(30)

    seen = stack.pulumi("preview", "--refresh", "--diff").stdout
    assert "dead-letters" in seen
    stack.make("up", "--no-collect")
    assert bus.dead_letters_topic in admin.list_topics(timeout=10).topics
    stack.pulumi("preview", "--expect-no-changes")
