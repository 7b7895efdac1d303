"""What the committer asks the archive: may a group's rows become visible, and what follows when they are.

The content of a unit is the group's task, and a receipt for each of its files that has come in.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from marketlake.archive import ledger
from marketlake.archive.collection.tasks import GroupTask
from marketlake.archive.ledger import Receipt
from marketlake.infrastructure.bus import outbox
from marketlake.infrastructure.postgres import Connection
from marketlake.pipeline.ingest.staging import StagedUnit
from marketlake.settings import EventBus
from marketlake.workers import assignments


class Content(BaseModel):
    """What a staged unit says about the files whose rows it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: GroupTask
    """With the files that have come in, in the order of the receipts."""
    receipts: tuple[Receipt, ...]
    moved: dict[int, int | None]
    """Data files that are replaced since one of their files was published anew, and their successors: the same
    rows but that file's, or none if no other is left."""

    @property
    def versions(self) -> dict[str, int | None]:
        """The versions that the ledger had of the files when the unit was made."""
        return {receipt.key: receipt.former_version for receipt in self.receipts}

    def to_json(self) -> dict[str, Any]:
        """Return it as it is staged."""
        return self.model_dump(mode="json")


class Compaction(BaseModel):
    """What a staged unit says that only arranges rows anew."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    venue: str
    homes: dict[int, tuple[str, ...]]
    """The new data files, and the keys of the source files whose rows each holds."""

    def to_json(self) -> dict[str, Any]:
        """Return it as it is staged."""
        return self.model_dump(mode="json")


class Archive:
    """The owner of the units that workers stage.

    Args:
        bus: names the topics.
    """

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    def contested(self, connection: Connection, units: Sequence[StagedUnit]) -> Mapping[UUID, str]:
        """See :meth:`marketlake.pipeline.ingest.staging.Owner.contested`."""
        refused: dict[UUID, str] = {}
        passed: set[tuple[str, str]] = set()
        for unit in units:
            if not unit.data_change:
                if reason := self._outdated(connection, unit):
                    refused[unit.id] = reason
                continue
            content = Content.model_validate(unit.content)
            venue, versions = content.task.files[0].venue, content.versions
            names = {(venue, key) for key in versions}
            now = ledger.current_versions(connection, venue, list(versions))
            if any(now.get(key) != version for key, version in versions.items()) or names & passed:
                refused[unit.id] = "another group has brought in one of its files meanwhile"
            elif not self._complete(connection, content):
                refused[unit.id] = "a data file that it replaces holds further files"
            else:
                passed |= names
        return refused

    def _outdated(self, connection: Connection, unit: StagedUnit) -> str | None:
        """Why a compaction can not be committed."""
        homes = Compaction.model_validate(unit.content).homes
        held = {
            entry.key
            for entries in ledger.in_data_files(connection, unit.replaces).values()
            for entry in entries
        }
        if held != {key for keys in homes.values() for key in keys}:
            return "the data files that it merges hold other files now"
        return None

    def _complete(self, connection: Connection, content: Content) -> bool:
        """Whether data files that are replaced without a successor hold nothing but files of this unit."""
        keys = set(content.versions)
        return all(
            ledger.keys_in(connection, number) <= keys
            for number, successor in content.moved.items()
            if successor is None
        )

    def committed(self, connection: Connection, units: Sequence[StagedUnit]) -> None:
        """See :meth:`marketlake.pipeline.ingest.staging.Owner.committed`."""
        tasks: list[UUID] = []
        for unit in units:
            if not unit.data_change:
                arranged = Compaction.model_validate(unit.content)
                ledger.rehouse(connection, arranged.venue, unit.replaces, arranged.homes)
                continue
            content = Content.model_validate(unit.content)
            task = content.task
            entries = ledger.record(connection, task.files, content.receipts, batch_id=task.batch_id)
            ledger.move(connection, content.moved)
            outbox.put(connection, self._bus.events_topic, [task.collected(entries, unit.traceparent)])
            tasks.append(task.id)
        assignments.committed(connection, tasks)

    def refused(self, connection: Connection, unit: StagedUnit) -> None:
        """See :meth:`marketlake.pipeline.ingest.staging.Owner.refused`."""
        if not unit.data_change:
            return  # the next one is made of what is there then
        task = Content.model_validate(unit.content).task
        topic = self._bus.tasks_topic
        assignments.requeue(connection, task.id, task.batch_id, topic=topic, traceparent=unit.traceparent)
