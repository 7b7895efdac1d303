"""The task of collecting a file, and the events that request it and tell its result."""

from typing import Any
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, TypeAdapter

from marketlake.archive.ledger import LedgerEntry
from marketlake.domain.archive import ArchiveFile, Selection
from marketlake.infrastructure.bus.envelope import Event
from marketlake.settings import VenueEndpoint

SOURCE = "/marketlake/collection"
FILE_REQUESTED = "marketlake.file.requested"
FILE_COLLECTED = "marketlake.file.collected"
FILE_FAILED = "marketlake.file.failed"

_SELECTIONS = TypeAdapter(Selection)


class FileTask(BaseModel):
    """The task to collect one archive file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    batch_id: UUID
    file: ArchiveFile
    endpoint: VenueEndpoint
    """Where the venue is read: its public archive, or a stand-in."""

    @classmethod
    def of(cls, file: ArchiveFile, endpoint: VenueEndpoint, batch_id: UUID) -> "FileTask":
        """Return the task of a file in a batch; the same file has the same id."""
        return cls(
            id=uuid5(batch_id, f"{file.venue}/{file.key}"), batch_id=batch_id, file=file, endpoint=endpoint
        )

    @classmethod
    def asked_again(cls, payload: dict[str, Any], traceparent: str | None) -> Event:
        """Return the event that asks once more for the task that was stored as JSON."""
        return cls.model_validate(payload).requested(traceparent)

    def requested(self, traceparent: str | None) -> Event:
        """Return the event that requests it. Tasks of the same file keep their order."""
        return Event(
            source=SOURCE,
            type=FILE_REQUESTED,
            subject=self.file.key,
            partition_key=f"{self.file.venue}/{self.file.key}",
            traceparent=traceparent,
            data=self.model_dump(mode="json"),
        )

    def collected(self, entry: LedgerEntry, outcome: str, traceparent: str | None) -> Event:
        """Return the event that tells that the file is collected."""
        return self._told(
            FILE_COLLECTED,
            traceparent,
            {
                "outcome": outcome,
                "version": entry.version,
                "sha256": entry.sha256,
                "size": entry.size,
                "rows": entry.rows,
                "quarantined": entry.quarantined,
                "landing_key": entry.landing_key,
                "landing_version_id": entry.landing_version_id,
                "bronze_version": entry.bronze_version,
            },
        )

    def failed(self, code: str, message: str, traceparent: str | None) -> Event:
        """Return the event that tells that the file failed, with what is needed to request it again."""
        return self._told(
            FILE_FAILED, traceparent, {"code": code, "message": message, "task": self.model_dump(mode="json")}
        )

    def _told(self, kind: str, traceparent: str | None, data: dict[str, Any]) -> Event:
        file = self.file
        return Event(
            id=str(uuid5(self.id, kind)),
            source=SOURCE,
            type=kind,
            subject=file.key,
            partition_key=f"{file.venue}/{file.key}",
            traceparent=traceparent,
            data={
                "task_id": str(self.id),
                "batch_id": str(self.batch_id),
                "venue": file.venue,
                "market": file.market,
                "data_type": file.data_type,
                "symbol": file.symbol,
                "interval": file.interval,
                "key": file.key,
                **data,
            },
        )


def selection_to_json(selection: Selection) -> dict[str, Any]:
    """Return the selection's fields as JSON values."""
    fields: dict[str, Any] = _SELECTIONS.dump_python(selection, mode="json")
    return fields


def selection_from_json(fields: dict[str, Any]) -> Selection:
    """Return the selection of :func:`selection_to_json`.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _SELECTIONS.validate_python(fields)
