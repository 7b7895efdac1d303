"""Upkeep of the tables: compaction, checkpoints, clean-up of logs, and what nobody names any more.

Everything runs beside writers. A compaction is staged, and committed like all else by the committer; objects are
deleted only after the tables' retention, which outlasts whatever is under way.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import boto3
import obstore
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from deltalake import DeltaTable

from marketlake.archive import ledger
from marketlake.archive.collection.admission import Compaction
from marketlake.archive.ledger import LedgerEntry
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.postgres import Postgres
from marketlake.infrastructure.postgres.locks import Wait, hold
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error
from marketlake.pipeline.contracts.contract import Contract
from marketlake.pipeline.contracts.tables import contracts
from marketlake.pipeline.ingest import staging
from marketlake.pipeline.ingest.compaction import Candidate, Merge, due, merge
from marketlake.pipeline.ingest.staging import StagedUnit
from marketlake.settings import ObjectStore

log = logging.getLogger(__name__)

RETENTION = timedelta(days=7)
"""How long objects stay that no version of a table names any more: longer than any query or commit takes."""
UPLOADS_KEPT = timedelta(days=1)
"""How long a multipart upload may take."""
CHECKPOINT_EVERY = 50
"""Commits after which a checkpoint is due."""
_DELETED_AT_ONCE = 1000


@dataclass(slots=True)
class TableUpkeep:
    """What was done, or is due, for one table."""

    table: str
    merged: int = 0
    """Data files that were merged into others."""
    merged_size: int = 0
    """Bytes of these."""
    checkpoint: bool = False
    deleted: int = 0
    """Objects that no version within the retention names."""


@dataclass(slots=True)
class Maintenance:
    """What was done, or is due."""

    tables: list[TableUpkeep] = field(default_factory=list)
    uploads: int = 0
    """Multipart uploads that were given up."""


class Maintainer:
    """Keeps the tables in good order; one at a time works.

    Args:
        postgres: where data files are known.
        lake: where the tables are.
        store: the object store, for uploads that were left.
    """

    def __init__(self, postgres: Postgres, lake: Lake, store: ObjectStore) -> None:
        self._postgres = postgres
        self._lake = lake
        self._store = store

    def maintain(self, *, wait: Wait, dry_run: bool = False, now: datetime | None = None) -> Maintenance:
        """Do what is due, or only tell it.

        Args:
            wait: waits for whoever is at it.
            dry_run: change nothing.
            now: the time; for tests.

        Raises:
            LockHeldError: `wait` said so.
            StorageError: the store failed.
            DatabaseUnavailableError: the database is away.
        """
        now = now or datetime.now(UTC)
        with hold(self._postgres, "upkeep", wait=wait):
            done = Maintenance()
            bronze = {contract.path: contract for contract in contracts().bronze.values()}
            for table in self._tables():
                upkeep = TableUpkeep(table)
                if contract := bronze.get(table):
                    self._compact(contract, upkeep, now.date(), dry_run=dry_run)
                self._tidy(table, upkeep, dry_run=dry_run)
                done.tables.append(upkeep)
            done.uploads = sum(
                self._give_up_uploads(bucket, now, dry_run=dry_run)
                for bucket in (self._store.landing_bucket, self._store.lake_bucket)
            )
            return done

    def _tables(self) -> Iterator[str]:
        """The tables that there are."""
        declared = [contract.path for contract in contracts()]
        for table in [*declared, "gaps", "quarantine", "catalogue"]:
            uri = self._lake.uri(table)
            try:
                if DeltaTable.is_deltatable(uri, storage_options=self._lake.options):
                    yield table
            except STORE_ERRORS as error:
                raise storage_error(error, f"looking for the table {table}") from error

    def _compact(self, contract: Contract, upkeep: TableUpkeep, today: date, *, dry_run: bool) -> None:
        with self._postgres.transaction() as connection:
            live = [Candidate(*each) for each in staging.live(connection, contract.path).items()]
        for wanted in due(contract, live, today):
            upkeep.merged += len(wanted.files)
            upkeep.merged_size += wanted.size
            if not dry_run:
                self._merge(contract, wanted)

    def _merge(self, contract: Contract, wanted: Merge) -> None:
        numbers = [candidate.id for candidate in wanted.files]
        with self._postgres.transaction() as connection:
            entries = [
                entry for group in ledger.in_data_files(connection, numbers).values() for entry in group
            ]
        if not entries:
            return  # all were replaced meanwhile
        merged = merge(self._lake, contract, wanted)
        unit_id = uuid4()
        with self._postgres.transaction() as connection:
            ids = staging.add_files(connection, unit_id, contract.path, [each.file for each in merged])
            homes = {
                number: tuple(entry.key for entry in entries if _series_of(contract, entry) in each.series)
                for number, each in zip(ids, merged, strict=True)
            }
            content = Compaction(venue=entries[0].venue, homes=homes).to_json()
            staging.stage(
                connection,
                StagedUnit(
                    unit_id,
                    contract.path,
                    tuple(numbers),
                    content,
                    telemetry.current_traceparent(),
                    data_change=False,
                ),
            )
        log.info(
            "%s, %s %s: %d data files are merged into %d",
            contract.path,
            wanted.market,
            wanted.month,
            len(numbers),
            len(merged),
        )

    def _tidy(self, table: str, upkeep: TableUpkeep, *, dry_run: bool) -> None:
        """Checkpoint, log, and objects that no version within the retention names."""
        try:
            opened = DeltaTable(self._lake.uri(table), storage_options=self._lake.options)
            upkeep.checkpoint = opened.version() - self._checkpointed(table) >= CHECKPOINT_EVERY
            hours = int(RETENTION.total_seconds() // 3600)
            gone = opened.vacuum(
                retention_hours=hours, dry_run=True, enforce_retention_duration=False, full=True
            )
            upkeep.deleted = len(gone)
            if dry_run:
                return
            if upkeep.checkpoint:
                opened.create_checkpoint()
            opened.cleanup_metadata()
            # Not by deltalake, which would commit that it does so: only the committer commits to bronze.
            for begin in range(0, len(gone), _DELETED_AT_ONCE):
                some = gone[begin : begin + _DELETED_AT_ONCE]
                obstore.delete(self._lake.bucket, [f"{table}/{path}" for path in some])
        except STORE_ERRORS as error:
            raise storage_error(error, f"tidying up {table}") from error

    def _checkpointed(self, table: str) -> int:
        """The version of the last checkpoint; 0 before the first."""
        try:
            found = obstore.get(self._lake.bucket, f"{table}/_delta_log/_last_checkpoint").bytes()
        except FileNotFoundError:
            return 0
        return int(json.loads(bytes(found))["version"])

    def _give_up_uploads(self, bucket: str, now: datetime, *, dry_run: bool) -> int:
        """Abort multipart uploads that nobody will complete; return how many."""
        client = self._client()
        count = 0
        try:
            for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
                for upload in page.get("Uploads", ()):
                    if now - upload["Initiated"] < UPLOADS_KEPT:
                        continue
                    count += 1
                    if not dry_run:
                        client.abort_multipart_upload(
                            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
        except (BotoCoreError, ClientError) as error:
            raise storage_error(error, f"looking for uploads in {bucket}") from error
        return count

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self._store.endpoint,
            region_name=self._store.region,
            aws_access_key_id=self._store.access_key_id,
            aws_secret_access_key=self._store.secret_access_key.get_secret_value(),
            config=Config(s3={"addressing_style": "path"}),
        )


def _series_of(contract: Contract, entry: LedgerEntry) -> tuple[str, ...]:
    values = {
        "venue": entry.venue,
        "market": entry.market,
        "symbol": entry.symbol,
        "interval": entry.interval or "",
    }
    return tuple(values[name] for name in contract.series)
