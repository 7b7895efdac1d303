"""What an environment's databases, topics and consumer group are called: in a server that it shares, by its prefix."""

from dataclasses import dataclass

from marketlake import settings as runtime
from pydantic import BaseModel

from stacks.settings.environment import EnvironmentSettings

_WORKFLOWS = "prefect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names within servers."""

    ledger: str
    """Database, and its owner, of the ledger and of the collections' state."""
    workflows: str
    """Database, and its owner, of the workflow engine's state."""
    tasks_topic: str
    events_topic: str
    dead_letters_topic: str
    workers_group: str
    """Consumer group of the collection workers."""

    @classmethod
    def of(cls, settings: EnvironmentSettings) -> "Names":
        """The names that the runtime expects unless told otherwise, behind the prefixes of the settings."""
        database, bus = settings.database.external, settings.event_bus.external
        in_database, in_bus = database.prefix if database else "", bus.prefix if bus else ""
        return cls(
            ledger=in_database + usual(runtime.Database, "name"),
            workflows=in_database + _WORKFLOWS,
            tasks_topic=in_bus + usual(runtime.EventBus, "tasks_topic"),
            events_topic=in_bus + usual(runtime.EventBus, "events_topic"),
            dead_letters_topic=in_bus + usual(runtime.EventBus, "dead_letters_topic"),
            workers_group=in_bus + usual(runtime.EventBus, "workers_group"),
        )


def usual(part: type[BaseModel], name: str) -> str:
    """The name that the runtime expects unless told otherwise."""
    return str(part.model_fields[name].default)
