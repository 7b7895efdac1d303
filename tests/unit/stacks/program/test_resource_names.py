"""What databases, topics and the consumer group are called."""

from typing import Any

import pytest

from stacks.program.resource_names import Names
from stacks.settings.validation import InvalidSettingsError, settings_from

DATABASE = {"host": "db.example.com", "password": "s"}
BUS = {"bootstrapServers": "a:9092", "username": "u", "password": "s"}


def named(**sections: Any) -> Names:
    return Names.of(settings_from(sections, source="test"))


def test_own_servers_hold_the_names_that_the_runtime_expects() -> None:
    names = named()
    assert (names.ledger, names.workflows) == ("marketlake", "prefect")
    assert names.tasks_topic == "collection.tasks"
    assert names.workers_group == "collection-workers"


def test_environments_in_one_server_are_told_apart_by_their_prefixes() -> None:
    names = named(
        database={"external": {**DATABASE, "prefix": "staging_"}},
        eventBus={"external": {**BUS, "prefix": "staging."}},
    )
    assert (names.ledger, names.workflows) == ("staging_marketlake", "staging_prefect")
    topics = (names.tasks_topic, names.events_topic, names.dead_letters_topic)
    assert topics == (
        "staging.collection.tasks",
        "staging.collection.events",
        "staging.collection.dead-letters",
    )
    assert names.workers_group == "staging.collection-workers"


@pytest.mark.parametrize("prefix", ["Staging_", "1_", "a-", "x" * 33])
def test_a_prefix_of_databases_begins_an_identifier(prefix: str) -> None:
    with pytest.raises(InvalidSettingsError, match=r"database\.external\.prefix"):
        named(database={"external": {**DATABASE, "prefix": prefix}})
