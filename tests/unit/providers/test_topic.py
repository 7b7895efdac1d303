from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigSource

from components.providers import topic, waiting
from components.providers.base import ResourceError, UnreachableError
from components.providers.topic import TopicInputs, TopicProvider

DECLARED = TopicInputs.model_validate(
    {
        "version": "1",
        "topic": "tasks",
        "partitions": 2,
        "connection": {"bootstrap_servers": "127.0.0.1:1", "password": "s3cret"},
    }
)


class Admin:
    """Kafka's admin client over a dictionary of topics; `errors` are raised first."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    topics: ClassVar[dict[str, int]] = {}
    errors: ClassVar[list[KafkaException]] = []
    refusal: ClassVar[str | None] = None
    lingering: ClassVar[list[str]] = []
    unknown: ClassVar[list[int]] = []
    """Codes with which the next questions about a configuration fail."""

    def poll(self, _timeout: float) -> None:
        if self.refusal:
            self.settings["error_cb"](KafkaError(KafkaError._AUTHENTICATION, self.refusal))

    def list_topics(self, timeout: float) -> Any:
        assert timeout > 0
        if self.errors:
            raise self.errors.pop(0)
        known = [*self.topics, *([self.lingering.pop()] if self.lingering else [])]
        partition = SimpleNamespace(replicas=[1])
        counted = {
            name: SimpleNamespace(partitions=dict.fromkeys(range(self.topics.get(name, 1)), partition))
            for name in known
        }
        return SimpleNamespace(topics=counted)

    def describe_configs(self, resources: list[Any], **_: Any) -> Any:
        if self.unknown:
            return {resources[0]: failed(self.unknown.pop())}
        own, broker = ConfigSource.DYNAMIC_TOPIC_CONFIG.value, ConfigSource.DEFAULT_CONFIG.value
        entries = {
            "retention.ms": SimpleNamespace(value="5", source=own),
            "segment.ms": SimpleNamespace(value="9", source=broker),
        }
        return {resources[0]: done(entries)}

    def create_topics(self, new: list[Any], **_: Any) -> Any:
        return {new[0].topic: failed(KafkaError.TOPIC_ALREADY_EXISTS)}

    def delete_topics(self, names: list[str], **_: Any) -> Any:
        return {names[0]: failed(KafkaError.UNKNOWN_TOPIC_OR_PART)}


def done(result: Any) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_result(result)
    return future


def failed(code: int) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_exception(KafkaException(KafkaError(code)))
    return future


@pytest.fixture(autouse=True)
def admin(monkeypatch: pytest.MonkeyPatch) -> type[Admin]:
    monkeypatch.setattr(waiting.time, "sleep", lambda _: None)
    monkeypatch.setattr(topic, "AdminClient", Admin)
    monkeypatch.setattr(Admin, "topics", {})
    monkeypatch.setattr(Admin, "errors", [])
    monkeypatch.setattr(Admin, "lingering", [])
    monkeypatch.setattr(Admin, "unknown", [])
    return Admin


def test_only_what_was_set_on_the_topic_itself_counts_as_its_configuration(admin: type[Admin]) -> None:
    admin.topics["tasks"] = 2
    live = TopicProvider().observe(DECLARED)
    assert live == {"partitions": 2, "replication_factor": None, "config": {"retention.ms": "5"}}
    declared = DECLARED.model_copy(update={"replication_factor": 3})
    live = TopicProvider().observe(declared)
    assert live is not None
    assert live["replication_factor"] == 1, "what is declared is compared with what is there"
    before, after = live, declared.model_dump()
    assert TopicProvider().replaced_by(before, after) == ["replication_factor"]
    assert TopicProvider().replaced_by(before, {**after, "replication_factor": None}) == []


def test_a_topic_that_is_listed_and_has_no_configuration_yet_is_looked_at_again(admin: type[Admin]) -> None:
    admin.topics["tasks"] = 2
    admin.unknown += [KafkaError.UNKNOWN_TOPIC_OR_PART] * 2
    live = TopicProvider().observe(DECLARED)
    assert live is not None
    assert live["partitions"] == 2


def test_a_topic_that_is_listed_while_it_is_deleted_is_gone_at_the_next_look(admin: type[Admin]) -> None:
    admin.lingering += ["tasks"]
    admin.unknown += [KafkaError.UNKNOWN_TOPIC_OR_PART]
    TopicProvider().remove(DECLARED)
    assert (admin.lingering, admin.unknown) == ([], [])


def test_any_other_refusal_to_tell_a_configuration_is_an_error(admin: type[Admin]) -> None:
    admin.topics["tasks"] = 2
    admin.unknown += [KafkaError.TOPIC_AUTHORIZATION_FAILED]
    with pytest.raises(ResourceError, match="refuses: "):
        TopicProvider().observe(DECLARED)


@pytest.mark.parametrize(
    "code", [KafkaError._TRANSPORT, KafkaError.NOT_CONTROLLER, KafkaError.REQUEST_TIMED_OUT]
)
def test_it_waits_for_a_broker_that_starts(admin: type[Admin], code: int) -> None:
    admin.errors += [KafkaException(KafkaError(code))] * 3
    assert TopicProvider().observe(DECLARED) is None
    assert admin.errors == []


def test_a_broker_that_stays_away_is_told(admin: type[Admin], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "REFRESH_TIMEOUT_S", 0.01)
    admin.errors += [KafkaException(KafkaError(KafkaError._TRANSPORT))] * 3
    with pytest.raises(UnreachableError, match=r"event bus at 127\.0\.0\.1:1 did not answer within 0\.01 s"):
        TopicProvider().observe(DECLARED)


def test_a_refused_identity_ends_the_waiting(admin: type[Admin], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "refusal", "Authentication failed")
    admin.errors.append(KafkaException(KafkaError(KafkaError._TRANSPORT)))
    with pytest.raises(ResourceError, match="refuses the administrator's identity: Authentication failed"):
        TopicProvider().observe(DECLARED)


def test_what_kafka_refuses_is_told(admin: type[Admin]) -> None:
    admin.errors.append(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not yours")))
    with pytest.raises(ResourceError, match="refuses: not yours"):
        TopicProvider().observe(DECLARED)


def test_a_topic_that_appears_meanwhile_is_ours() -> None:
    assert TopicProvider().apply(DECLARED) == {}


def test_a_deletion_waits_until_the_topic_is_gone(admin: type[Admin]) -> None:
    admin.lingering += ["tasks", "tasks"]
    TopicProvider().remove(DECLARED)
    assert admin.lingering == []


def test_a_deletion_that_kafka_refuses_is_told(admin: type[Admin], monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {"tasks": failed(KafkaError.TOPIC_AUTHORIZATION_FAILED)}
    monkeypatch.setattr(admin, "delete_topics", lambda *_, **__: refused)
    with pytest.raises(ResourceError, match="refuses: "):
        TopicProvider().remove(DECLARED)


def test_a_creation_that_kafka_refuses_is_told(admin: type[Admin], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "create_topics", lambda *_, **__: {"tasks": failed(KafkaError.INVALID_CONFIG)})
    with pytest.raises(ResourceError, match="refuses: "):
        TopicProvider().apply(DECLARED)


def test_settings_that_the_client_does_not_take_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    connection = DECLARED.connection.model_copy(update={"security_protocol": "SASL_PLAINTXT"})
    with pytest.raises(ResourceError, match="refuses the connection's settings"):
        TopicProvider().observe(DECLARED.model_copy(update={"connection": connection}))


def test_sasl_goes_to_the_client() -> None:
    sasl = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "u"}
    connection = DECLARED.connection.model_copy(update=sasl)
    cluster = topic._Cluster(connection, 1)
    settings = cluster._admin.settings
    assert settings["security.protocol"] == "SASL_PLAINTEXT"
    assert (settings["sasl.username"], settings["sasl.password"]) == ("u", "s3cret")


@pytest.mark.parametrize(
    ("before", "after", "replaces"), [(4, 2, ["partitions"]), (2, 4, []), (None, 2, []), (2, 2, [])]
)
def test_only_fewer_partitions_replace(before: Any, after: Any, replaces: list[str]) -> None:
    assert TopicProvider().replaced_by({"partitions": before}, {"partitions": after}) == replaces


def test_fewer_partitions_replace_as_pulumi_hands_numbers_on() -> None:
    recorded = {**DECLARED.model_dump(mode="json"), "partitions": 4.0}
    diff = TopicProvider().diff("tasks", recorded, {**recorded, "partitions": 2.0})
    assert (diff.changes, diff.replaces) == (True, ["partitions"])
