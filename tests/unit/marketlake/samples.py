"""Settings as tests need them: every part filled in, nothing reachable."""

from typing import Any

from marketlake.settings import Settings


def settings(**changes: Any) -> Settings:
    """Settings of an environment `test` whose ports nobody listens on."""
    values: dict[str, Any] = {
        "environment": "test",
        "object_store": {
            "endpoint": "http://127.0.0.1:1",
            "access_key_id": "key",
            "secret_access_key": "object-secret",
        },
        "event_bus": {
            "bootstrap_servers": "127.0.0.1:1",
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "username": "u",
            "password": "bus-secret",
        },
        "database": {"host": "127.0.0.1", "port": 1, "user": "lake", "password": "database-secret"},
        "workflow_engine": {
            "api_url": "http://127.0.0.1:1/api",
            "ui_url": "http://127.0.0.1:1",
            "auth_string": "user:engine-secret",
        },
        "telemetry": {"username": "t", "password": "telemetry-secret"},
        "venues": {"binance": {"endpoint": "http://127.0.0.1:1", "bucket": "stand-in"}},
    }
    return Settings(**(values | changes))
