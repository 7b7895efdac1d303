"""The tasks of a batch: to collect a group of files, and to refine some series; and the events that tell results."""

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, TypeAdapter

from marketlake.archive.ledger import LedgerEntry
from marketlake.domain.archive import ArchiveFile, Selection, Series
from marketlake.infrastructure.bus.envelope import Event
from marketlake.settings import VenueEndpoint
from marketlake.workers.assignments import PartFailure

SOURCE = "/marketlake/collection"
COLLECTION, REFINEMENT = "collection", "refinement"
"""Kinds of tasks."""
FILES_COLLECTED = "marketlake.files.collected"
FILES_FAILED = "marketlake.files.failed"

_SELECTIONS = TypeAdapter(Selection)


class GroupTask(BaseModel):
    """The task to collect some archive files of one dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str] = COLLECTION

    id: UUID
    batch_id: UUID
    files: tuple[ArchiveFile, ...]
    endpoint: VenueEndpoint
    """Where the venue is read: its public archive, or a stand-in."""
    from_landing: bool = False
    """The files are in landing, and taken over again whatever bronze has of them."""

    @classmethod
    def of(
        cls,
        files: Sequence[ArchiveFile],
        endpoint: VenueEndpoint,
        batch_id: UUID,
        *,
        from_landing: bool = False,
    ) -> "GroupTask":
        """Return the task of some files in a batch; the same files have the same id."""
        names = "\n".join(f"{file.venue}/{file.key}" for file in files)
        return cls(
            id=uuid5(batch_id, names),
            batch_id=batch_id,
            files=tuple(files),
            endpoint=endpoint,
            from_landing=from_landing,
        )

    @property
    def parts(self) -> int:
        """How many files it has."""
        return len(self.files)

    @property
    def size(self) -> int:
        """Bytes of all files, as listed."""
        return sum(file.size for file in self.files)

    def collected(self, entries: Sequence[LedgerEntry], traceparent: str | None) -> Event:
        """Return the event that tells which of the files are collected."""
        fields = (
            "key",
            "version",
            "sha256",
            "size",
            "rows",
            "quarantined",
            "landing_key",
            "landing_version_id",
        )
        told = [{name: getattr(entry, name) for name in fields} for entry in entries]
        return self._told(FILES_COLLECTED, traceparent, {"files": told})

    def failed(self, failures: Sequence[PartFailure], traceparent: str | None) -> Event:
        """Return the event that tells which of the files failed, with what is needed to request them again."""
        failing = {failure.key for failure in failures}
        again = [file for file in self.files if file.key in failing]
        told = [
            {
                "key": failure.key,
                "code": failure.code,
                "message": failure.message,
                "attempts": failure.attempts,
            }
            for failure in failures
        ]
        task = self.model_copy(update={"files": tuple(again)}).model_dump(mode="json")
        return self._told(FILES_FAILED, traceparent, {"files": told, "task": task})

    def _told(self, kind: str, traceparent: str | None, data: dict[str, Any]) -> Event:
        first = self.files[0]
        return Event(
            source=SOURCE,
            type=kind,
            subject=f"{first.venue}/{first.market}/{first.data_type}",
            partition_key=str(self.batch_id),
            traceparent=traceparent,
            data={
                "task_id": str(self.id),
                "batch_id": str(self.batch_id),
                "venue": first.venue,
                "market": first.market,
                "data_type": first.data_type,
                **data,
            },
        )


class SeriesPart(BaseModel):
    """A series that is to be refined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    """Names it in messages, e.g. ``spot klines BTCUSDT 1m``."""
    symbol: str
    interval: str | None


class RefinementTask(BaseModel):
    """The task to refine what is not refined yet of some series of one dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str] = REFINEMENT
    size: ClassVar[int] = 0
    """Nothing is copied."""

    id: UUID
    batch_id: UUID
    venue: str
    market: str
    data_type: str
    series: tuple[SeriesPart, ...]

    @classmethod
    def of(cls, series: Sequence[Series], batch_id: UUID) -> "RefinementTask":
        """Return the task of some series of one dataset in a batch; the same series have the same id."""
        first = series[0]
        parts = tuple(
            SeriesPart(
                key=" ".join(filter(None, (one.market, one.data_type, one.symbol, one.interval))),
                symbol=one.symbol,
                interval=one.interval,
            )
            for one in series
        )
        names = "\n".join([REFINEMENT, first.venue, *(part.key for part in parts)])
        return cls(
            id=uuid5(batch_id, names),
            batch_id=batch_id,
            venue=first.venue,
            market=first.market,
            data_type=first.data_type,
            series=parts,
        )

    @property
    def parts(self) -> int:
        """How many series it has."""
        return len(self.series)

    def named(self) -> dict[Series, str]:
        """Return the series with their names in messages."""
        return {
            Series(
                venue=self.venue,
                market=self.market,
                data_type=self.data_type,
                symbol=part.symbol,
                interval=part.interval,
            ): part.key
            for part in self.series
        }


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
