import pytest
from confluent_kafka import KafkaError, KafkaException
from marketlake.events.connection import (
    EventBusRefusedError,
    EventBusUnavailableError,
    client_configuration,
    named,
)
from marketlake.settings import EventBus

BUS = EventBus(bootstrap_servers="host:1")


def test_a_bus_without_credentials_names_none() -> None:
    assert not {name for name in client_configuration(BUS, client_id="c") if name.startswith("sasl")}


def test_credentials_go_to_the_client() -> None:
    bus = BUS.model_copy(update={"sasl_mechanism": "PLAIN", "username": "u", "password": None})
    configuration = client_configuration(bus, client_id="c")
    assert (configuration["sasl.mechanism"], configuration["sasl.username"]) == ("PLAIN", "u")
    assert "sasl.password" not in configuration


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._ALL_BROKERS_DOWN, EventBusUnavailableError),
        (KafkaError._MSG_TIMED_OUT, EventBusUnavailableError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, EventBusRefusedError),
        (KafkaError.MSG_SIZE_TOO_LARGE, EventBusRefusedError),
    ],
)
def test_outages_and_refusals_are_told_apart(code: int, kind: type[Exception]) -> None:
    error = named(KafkaException(KafkaError(code)), bus=BUS, doing="publishing to t")
    assert type(error) is kind
    assert str(error).startswith("publishing to t: the event bus at host:1 says ")
