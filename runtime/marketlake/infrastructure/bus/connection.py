"""The configuration of clients of the event bus, and the meaning of their errors."""

import logging
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from marketlake.errors import MarketlakeError
from marketlake.settings import EventBus

log = logging.getLogger("marketlake.infrastructure.bus")


class EventBusUnavailableError(MarketlakeError):
    """The event bus does not answer, or did not confirm in time; the same work may succeed later."""

    code = "event-bus-unavailable"
    transient = True


class EventBusRefusedError(MarketlakeError):
    """The event bus answers, and refuses: repeating it cannot help."""

    code = "event-bus-refused"


_LASTING = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's local codes have no public names
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
    }
)


def client_configuration(bus: EventBus, *, client_id: str) -> dict[str, Any]:
    """Return the configuration of every librdkafka client of the platform."""
    identity = {
        "sasl.mechanism": bus.sasl_mechanism,
        "sasl.username": bus.username,
        "sasl.password": bus.password.get_secret_value() if bus.password else None,
    }
    return {
        "bootstrap.servers": bus.bootstrap_servers,
        "security.protocol": bus.security_protocol,
        **_tls(bus),
        "client.id": client_id,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2000,
        "socket.connection.setup.timeout.ms": 5000,
        "topic.metadata.refresh.interval.ms": 30_000,
        "allow.auto.create.topics": False,
        "log_level": 2,  # each failed reconnection is a line at 3; errors come back through calls and callbacks
        "logger": log,
        **{name: value for name, value in identity.items() if value is not None},
    }


def _tls(bus: EventBus) -> dict[str, Any]:
    """Return what a client verifies of a broker, where the protocol has TLS: its certificate and name."""
    if not bus.security_protocol.endswith("SSL"):
        return {}
    verified = {"enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https"}
    return verified if bus.root_certificate is None else {**verified, "ssl.ca.pem": bus.root_certificate}


class ErrorLog:
    """Logs errors that a client reports outside of its calls, the same one at most once in `every_s` seconds."""

    def __init__(
        self,
        bus: EventBus,
        *,
        doing: str,
        every_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._doing = doing
        self._every_s = every_s
        self._clock = clock
        self._told: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        """Log an error of the client."""
        code = error.code()
        now = self._clock()
        if now - self._told.get(code, float("-inf")) >= self._every_s:
            self._told[code] = now
            log.warning("%s", named(error, bus=self._bus, doing=self._doing))


def is_lasting(error: KafkaError) -> bool:
    """Return whether repeating what failed so cannot help."""
    return error.code() in _LASTING


def named(error: KafkaError | KafkaException, *, bus: EventBus, doing: str) -> Exception:
    """Return the platform's exception for a client's error."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    text = f"{doing}: the event bus at {bus.bootstrap_servers} says {cause.name()}: {cause.str()}"
    if is_lasting(cause):
        return EventBusRefusedError(
            f"{text}. Check the topic's access rules and the credentials of this environment."
        )
    return EventBusUnavailableError(
        f"{text}. Look at `marketlake status`; `make up` starts what was stopped."
    )
