import logging

import pytest
from marketlake.infrastructure.telemetry.redaction import Redaction, RedactionFilter, secrets_of
from marketlake.settings import Database, ObjectStore, Settings, VenueEndpoint

from tests.unit.marketlake.samples import settings


def test_every_secret_of_the_settings_is_known() -> None:
    assert set(secrets_of(settings())) == {
        "object-secret",
        "bus-secret",
        "database-secret",
        "user:engine-secret",
        "telemetry-secret",
    }


def test_settings_without_optional_secrets_have_fewer() -> None:
    assert secrets_of(VenueEndpoint(endpoint="http://h", bucket="b")) == []
    assert secrets_of(Database(host="h", port=1, user="u", password="hidden")) == ["hidden"]
    assert secrets_of(ObjectStore(endpoint="e", access_key_id="a", secret_access_key="hidden")) == ["hidden"]


def test_a_known_value_is_masked_wherever_it_stands() -> None:
    assert Redaction(["s3cret-value"])("a s3cret-value, twice: s3cret-value") == "a ***, twice: ***"


def test_a_value_that_contains_another_is_masked_as_a_whole() -> None:
    assert Redaction(["secret-long", "secret-long-er"])("secret-long-er") == "***"


def test_a_value_too_short_to_be_a_secret_is_not_looked_for() -> None:
    assert Redaction(["a"])("banana") == "banana"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://user:pass@host/db", "postgresql://user:***@host/db"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ('"authorization": "Bearer abc.def"', '"authorization": "Bearer ***"'),
        ("password=hunter2 user=x", "password=*** user=x"),
        (r"{\"password\": \"hunter2\"}", r'{\"password\": \"***"}'),
        ("aws_secret_access_key: 'abc'", "aws_secret_access_key: '***'"),
        ("https://h/b?X-Amz-Signature=abc&x=1", "https://h/b?X-Amz-Signature=***&x=1"),
        ("PULUMI_CONFIG_PASSPHRASE=abc", "PULUMI_CONFIG_PASSPHRASE=***"),
        ("the key of the file is data/spot/x.zip", "the key of the file is data/spot/x.zip"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, expected: str) -> None:
    assert Redaction()(text) == expected


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, None) if error else None
    return logging.LogRecord("x", logging.INFO, "f", 1, message, args, exc_info)


def test_arguments_of_a_record_are_masked() -> None:
    made = record("connecting with %s", "s3cret-value")
    assert RedactionFilter(Redaction(["s3cret-value"])).filter(made)
    assert made.getMessage() == "connecting with ***"


def test_a_stack_trace_is_masked() -> None:
    made = record("failed", error=ValueError("bad s3cret-value"))
    RedactionFilter(Redaction(["s3cret-value"])).filter(made)
    assert made.exc_text == "ValueError: bad ***"
    assert logging.Formatter().format(made).endswith("ValueError: bad ***")
    RedactionFilter(Redaction(["bad"])).filter(made)
    assert made.exc_text == "ValueError: bad ***"


def test_a_record_with_the_wrong_number_of_arguments_is_not_lost() -> None:
    made = record("one %s two %s", "a")
    RedactionFilter(Redaction()).filter(made)
    assert made.getMessage() == "one %s two %s ('a',)"


def test_settings_do_not_show_secrets_when_they_are_printed() -> None:
    shown = repr(settings())
    assert all(secret not in shown for secret in secrets_of(settings()))
    assert isinstance(settings(), Settings)
