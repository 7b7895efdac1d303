import pytest
from confluent_kafka import KafkaError, KafkaException
from marketlake.infrastructure.bus.connection import (
    ErrorLog,
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
    ("protocol", "root", "verified"),
    [
        ("PLAINTEXT", None, {}),
        ("SASL_PLAINTEXT", "PEM", {}),
        ("SSL", None, {"ssl.endpoint.identification.algorithm": "https"}),
        ("SASL_SSL", "PEM", {"ssl.endpoint.identification.algorithm": "https", "ssl.ca.pem": "PEM"}),
    ],
)
def test_brokers_are_verified_where_the_protocol_has_tls(
    protocol: str, root: str | None, verified: dict[str, str]
) -> None:
    bus = BUS.model_copy(update={"security_protocol": protocol, "root_certificate": root})
    configuration = client_configuration(bus, client_id="c")
    assert {name: value for name, value in configuration.items() if name.startswith("ssl.")} == verified
    assert configuration.get("enable.ssl.certificate.verification") is (True if verified else None)


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


def test_the_same_complaint_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    moments = iter([0.0, 1.0, 2.0, 61.0])
    complaints = ErrorLog(BUS, doing="consuming t", clock=lambda: next(moments))
    down, timed_out = KafkaError(KafkaError._ALL_BROKERS_DOWN), KafkaError(KafkaError._TIMED_OUT)
    for error in (down, down, timed_out, down):
        complaints(error)
    told = [record.getMessage().split(":")[2].split()[-1] for record in caplog.records]
    assert told == ["_ALL_BROKERS_DOWN", "_TIMED_OUT", "_ALL_BROKERS_DOWN"]
