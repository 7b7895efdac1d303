"""Collect a group of files: look into the ledger, copy, ingest, and stage what came of it."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID, uuid4

from marketlake.archive import ledger
from marketlake.archive.collection.admission import Content
from marketlake.archive.collection.tasks import GroupTask
from marketlake.archive.collection.transfers import FailedTransfer, Transfers
from marketlake.archive.ledger import LedgerEntry, Receipt
from marketlake.domain.archive import ArchiveFile
from marketlake.domain.venue import load_venue
from marketlake.errors import MarketlakeError
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.bus import outbox
from marketlake.infrastructure.postgres import Connection
from marketlake.infrastructure.storage.delta import DataFile
from marketlake.infrastructure.telemetry import metrics
from marketlake.pipeline.ingest import staging
from marketlake.pipeline.ingest.bronze import FileRows, Ingested, LandedFile
from marketlake.pipeline.ingest.staging import StagedUnit
from marketlake.retry import FailedAttempt
from marketlake.sync.copy import CopiedObject
from marketlake.workers import assignments
from marketlake.workers.assignments import Lease, PartFailure, Result
from marketlake.workers.attempts import Attempts
from marketlake.workers.dispatcher import code_of, text_of
from marketlake.workers.worker import WorkerProcess

log = logging.getLogger(__name__)

Made = TypeVar("Made")


class Lakehouse(Protocol):
    """Writes data files of bronze (:mod:`marketlake.pipeline.ingest.bronze`)."""

    def table(self, file: ArchiveFile) -> str:
        """Return the table that holds a file's rows, e.g. ``bronze/binance_klines``."""
        ...

    def ingest(self, landed: Sequence[LandedFile], name: str) -> Ingested:
        """Write the rows of some files into a data file of that name."""
        ...

    def without(self, table: str, former: DataFile, keys: set[str], name: str) -> DataFile | None:
        """Write a data file anew but the rows of some source files; None if there are no others."""
        ...


@dataclass(frozen=True, slots=True)
class _Collected:
    """What came of the files of a group that had to be brought in."""

    copied: dict[str, CopiedObject]
    verified: list[tuple[ArchiveFile, LedgerEntry]]
    """Listed otherwise than before, with the bytes that are in already."""
    failures: list[PartFailure]


class Collector:
    """Works on tasks of the kind :data:`~marketlake.archive.collection.tasks.COLLECTION`.

    Args:
        process: the worker.
        transfers: copies files into landing.
        lakehouse: writes their rows.
    """

    def __init__(self, process: WorkerProcess, *, transfers: Transfers, lakehouse: Lakehouse) -> None:
        self._settings = process.settings
        self._postgres = process.postgres
        self._attempts = Attempts(process)
        self._transfers = transfers
        self._lakehouse = lakehouse

    def work(self, lease: Lease) -> None:
        """See :meth:`marketlake.workers.dispatcher.TaskKind.work`; whatever comes out of it for the files."""
        began = time.monotonic()
        task = GroupTask.model_validate(lease.payload)
        with self._postgres.transaction() as connection:
            known = ledger.current(connection, task.files[0].venue, [file.key for file in task.files])
        if task.from_landing:
            wanted = [file for file in task.files if file.key in known]
            collected = self._recalled(lease, wanted, known)
        else:
            wanted = [file for file in task.files if not _is_in(file, known.get(file.key))]
            collected = self._copied(lease, task, wanted, known)
        self._stage(lease, task, known, collected, present=len(task.files) - len(wanted))
        labels = _labels(task.files[0])
        metrics.duration().record(time.monotonic() - began, labels)

    def _copied(
        self, lease: Lease, task: GroupTask, wanted: list[ArchiveFile], known: dict[str, LedgerEntry]
    ) -> _Collected:
        copied: dict[str, CopiedObject] = {}
        verified: list[tuple[ArchiveFile, LedgerEntry]] = []
        failures: list[PartFailure] = []
        results = self._transfers.bring(
            wanted,
            task.endpoint,
            integrity=load_venue(task.files[0].venue).integrity,
            known=frozenset(known),
            tell=partial(self._note_attempt, lease),
        )
        for file in wanted:
            result, former = results[file.key], known.get(file.key)
            if isinstance(result, FailedTransfer):
                failures.append(_failure(file, result.error, result.attempts))
            elif former is not None and former.sha256 == result.sha256 and former.in_bronze:
                verified.append((file, former))
            else:
                copied[file.key] = result
        return _Collected(copied, verified, failures)

    def _recalled(self, lease: Lease, wanted: list[ArchiveFile], known: dict[str, LedgerEntry]) -> _Collected:
        results = self._transfers.recall(
            [known[file.key] for file in wanted], tell=partial(self._note_attempt, lease)
        )
        copied: dict[str, CopiedObject] = {}
        failures: list[PartFailure] = []
        for file in wanted:
            result = results[file.key]
            if isinstance(result, FailedTransfer):
                failures.append(_failure(file, result.error, result.attempts))
            else:
                copied[file.key] = result
        return _Collected(copied, [], failures)

    def _stage(
        self,
        lease: Lease,
        task: GroupTask,
        known: dict[str, LedgerEntry],
        collected: _Collected,
        *,
        present: int,
    ) -> None:
        """Write the rows, and hand them to the committer together with the end of the task."""
        files = [file for file in task.files if file.key in collected.copied]
        parts = self._attempts.retry(lease, partial(self._ingested, files, collected.copied, known))
        bad = {key: error for part in parts for key, error in part.failures.items()}
        rows = {key: of_file for part in parts for key, of_file in part.files.items()}
        failures = [
            *collected.failures,
            *(_failure(file, bad[file.key], 1) for file in files if file.key in bad),
        ]
        taken = [file for file in files if file.key in rows]
        table = self._lakehouse.table(task.files[0])
        moved = self._attempts.retry(lease, partial(self._moved, table, taken, known))
        already = [file for file in taken if collected.copied[file.key].already_there]
        result = Result(
            present=present,
            copied=len(taken) - len(already),
            verified=len(already) + len(collected.verified),
            failures=tuple(failures),
            rows=sum(of_file.rows for of_file in rows.values()),
            quarantined=sum(of_file.quarantined for of_file in rows.values()),
            copied_size=sum(file.size for file in taken if file not in already),
        )
        unit_id = uuid4()
        bus = self._settings.event_bus
        traceparent = telemetry.current_traceparent()
        with telemetry.span("stage", files=len(taken)), self._postgres.transaction() as connection:
            for file, former in collected.verified:
                ledger.touch(connection, file, former)
            assignments.end(connection, lease, result, staged=bool(taken))
            if taken:
                homes = self._homes(connection, unit_id, table, parts)
                successors = self._successors(connection, unit_id, table, moved)
                content = Content(
                    task=task.model_copy(update={"files": tuple(taken)}),
                    receipts=tuple(
                        _receipt(
                            file,
                            collected.copied[file.key],
                            rows[file.key],
                            known.get(file.key),
                            homes[file.key],
                        )
                        for file in taken
                    ),
                    moved=successors,
                )
                staging.stage(
                    connection, StagedUnit(unit_id, table, tuple(successors), content.to_json(), traceparent)
                )
            if failures:
                event = task.failed(failures, traceparent)
                outbox.put(connection, bus.events_topic, [event])
                outbox.put(connection, bus.dead_letters_topic, [event])
        self._tell(task, result)

    def _ingested(
        self, files: list[ArchiveFile], copied: dict[str, CopiedObject], known: dict[str, LedgerEntry]
    ) -> list[Ingested]:
        """The files' rows in one data file; in one each if something unforeseen befalls the whole."""
        landed = [
            LandedFile(
                file,
                copied[file.key].key,
                copied[file.key].data,
                version_id=copied[file.key].version_id,
                etag=copied[file.key].etag,
                was_quarantined=bool((former := known.get(file.key)) and former.quarantined),
            )
            for file in files
        ]
        if not landed:
            return []
        try:
            return [self._lakehouse.ingest(landed, str(uuid4()))]
        except MarketlakeError:
            raise
        except Exception:
            log.exception("a group of %d files failed: each is tried by itself", len(files))
            return [self._ingested_alone(each) for each in landed]

    def _ingested_alone(self, landed: LandedFile) -> Ingested:
        try:
            return self._lakehouse.ingest([landed], str(uuid4()))
        except MarketlakeError as error:
            if error.transient:
                raise
            return Ingested(None, {}, {landed.file.key: error})
        except Exception as error:
            log.exception("%s failed", landed.file.key)
            return Ingested(None, {}, {landed.file.key: error})

    def _homes(
        self, connection: Connection, unit_id: UUID, table: str, parts: Sequence[Ingested]
    ) -> dict[str, int | None]:
        """Ids of the data files that hold the files' rows, by key."""
        homes: dict[str, int | None] = {}
        for part in parts:
            written = [part.data_file] if part.data_file else []
            (number,) = staging.add_files(connection, unit_id, table, written) or (None,)
            homes |= dict.fromkeys(part.files, number)
        return homes

    def _moved(
        self, table: str, files: list[ArchiveFile], known: dict[str, LedgerEntry]
    ) -> dict[int, DataFile | None]:
        """Data files that hold former versions of these files, each with its successor that does not."""
        keys = {file.key for file in files}
        numbers = {known[key].data_file_id for key in keys & known.keys()} - {None}
        if not numbers:
            return {}
        with self._postgres.transaction() as connection:
            former = staging.files_of(connection, sorted(number for number in numbers if number is not None))
            whole = {number for number in former if ledger.keys_in(connection, number) <= keys}
        return {
            number: None if number in whole else self._lakehouse.without(table, file, keys, str(uuid4()))
            for number, file in former.items()
        }

    def _successors(
        self, connection: Connection, unit_id: UUID, table: str, moved: dict[int, DataFile | None]
    ) -> dict[int, int | None]:
        return {
            number: staging.add_files(connection, unit_id, table, [file])[0] if file else None
            for number, file in moved.items()
        }

    def _note_attempt(self, lease: Lease, file: ArchiveFile, failed: FailedAttempt) -> None:
        code = code_of(failed.error)
        message = "%s: %s: %s; attempt %d in %.1f s"
        log.warning(message, file.key, code, failed.error, failed.number + 1, failed.wait_s)
        metrics.retries().add(1, {"venue": file.venue, "code": code})
        self._attempts.note(lease, failed.error)

    def _tell(self, task: GroupTask, result: Result) -> None:
        first = task.files[0]
        labels = _labels(first)
        counts = {
            "present": result.present,
            "copied": result.copied,
            "verified": result.verified,
            "failed": len(result.failures),
        }
        for outcome, number in counts.items():
            if number:
                metrics.files().add(number, {**labels, "outcome": outcome})
        metrics.rows().add(result.rows, {**labels, "layer": "bronze"})
        metrics.rows().add(result.quarantined, {**labels, "layer": "quarantine"})
        for failure in result.failures:
            metrics.failures().add(1, {"venue": first.venue, "code": failure.code})
            log.error(
                "%s failed after %d attempts: %s: %s",
                failure.key,
                failure.attempts,
                failure.code,
                failure.message,
            )
        log.info(
            "%s %s, %d files from %s on: %d copied, %d verified, %d failed; %d rows, %d quarantined",
            first.market,
            first.data_type,
            len(task.files),
            first.key,
            result.copied,
            result.verified,
            len(result.failures),
            result.rows,
            result.quarantined,
        )


def _is_in(file: ArchiveFile, former: LedgerEntry | None) -> bool:
    return former is not None and former.is_of(file) and former.in_bronze


def _receipt(
    file: ArchiveFile,
    copied: CopiedObject,
    rows: FileRows,
    former: LedgerEntry | None,
    data_file_id: int | None,
) -> Receipt:
    version = 1
    if former is not None:
        version = former.version if former.sha256 == copied.sha256 else former.version + 1
    return Receipt(
        key=file.key,
        version=version,
        former_version=former.version if former else None,
        sha256=copied.sha256,
        header=rows.header,
        rows=rows.rows,
        quarantined=rows.quarantined,
        first_day=rows.first_day,
        last_day=rows.last_day,
        landing_key=copied.key,
        landing_version_id=copied.version_id,
        data_file_id=data_file_id if rows.rows else None,
    )


def _failure(file: ArchiveFile, error: Exception, attempts: int) -> PartFailure:
    return PartFailure(file.key, code_of(error), text_of(error), attempts)


def _labels(file: ArchiveFile) -> dict[str, str]:
    return {"venue": file.venue, "market": file.market, "data_type": file.data_type}
