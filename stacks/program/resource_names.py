"""Names of an environment's databases, topics and consumer group, with a prefix in servers that it shares."""

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
        """Return the runtime's default names, behind the prefixes of the settings."""
        database, bus = settings.database.external, settings.event_bus.external
        in_database, in_bus = database.prefix if database else "", bus.prefix if bus else ""
        return cls(
            ledger=in_database + default_of(runtime.Database, "name"),
            workflows=in_database + _WORKFLOWS,
            tasks_topic=in_bus + default_of(runtime.EventBus, "tasks_topic"),
            events_topic=in_bus + default_of(runtime.EventBus, "events_topic"),
            dead_letters_topic=in_bus + default_of(runtime.EventBus, "dead_letters_topic"),
            workers_group=in_bus + default_of(runtime.EventBus, "workers_group"),
        )


def default_of(part: type[BaseModel], name: str) -> str:
    """Return the runtime's default of a setting."""
    return str(part.model_fields[name].default)
