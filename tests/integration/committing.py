"""A table, its ledger and its committer on a real PostgreSQL and a real Delta log, with processes that end halfway."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID, uuid4

import polars as pl
from deltalake import DeltaTable
from marketlake.archive import ledger
from marketlake.archive.collection.admission import Archive, Content
from marketlake.archive.collection.tasks import GroupTask
from marketlake.archive.ledger import Receipt
from marketlake.archive.upkeep import Maintainer
from marketlake.domain.archive import ArchiveFile
from marketlake.infrastructure.postgres import Postgres
from marketlake.infrastructure.storage.delta import DataFile, data_files, write_blocks
from marketlake.infrastructure.storage.parquet import Block
from marketlake.infrastructure.storage.stores import Lake
from marketlake.pipeline.contracts.table_type import TableType
from marketlake.pipeline.contracts.tables import table_type
from marketlake.pipeline.ingest import staging
from marketlake.pipeline.ingest.bronze import Bronze, bronze_shape, shape_of
from marketlake.pipeline.ingest.committer import Committer, Step
from marketlake.pipeline.ingest.compaction import Candidate, Merge
from marketlake.pipeline.ingest.staging import StagedUnit
from marketlake.settings import EventBus, ObjectStore, VenueEndpoint
from obstore.store import LocalStore, MemoryStore

from tests.unit.marketlake.archive.samples import archive_file
from tests.unit.marketlake.pipeline.files import LIMITS

BATCH = UUID(int=3)
ENDPOINT = VenueEndpoint(endpoint="http://127.0.0.1:1", bucket="b")
BUS = EventBus(bootstrap_servers="127.0.0.1:1")
STORE = ObjectStore(endpoint="http://127.0.0.1:1", access_key_id="nobody", secret_access_key="none")
"""There is none: the lake is a folder."""


class CrashError(Exception):
    """The process ends here."""


@dataclass
class World:
    """Files are numbered from 1; the bars of a file's version all close at that version."""

    postgres: Postgres
    folder: Path
    read: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """What data files hold, by path."""
    shown: dict[tuple[str, ...], dict[str, list[int]]] = field(default_factory=dict)
    """What readers see, by the commits of the table's log."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lake = Lake(root=str(self.folder), bucket=LocalStore(self.folder))
        self.bronze = Bronze(self.lake, MemoryStore(), LIMITS)
        self.owner = Archive(BUS)

    @property
    def declared(self) -> TableType:
        return table_type("binance", "spot", "klines")

    @property
    def table(self) -> str:
        return self.declared.bronze.path

    def committer(self, reached: Callable[[Step], None] = lambda _: None) -> Committer:
        """A committer that has taken over."""
        committer = Committer(self.postgres, self.lake, shape_of=shape_of, owner=self.owner, reached=reached)
        committer.take_over()
        return committer

    def idle_committer(self) -> Committer:
        """A committer that has yet to run."""
        return Committer(self.postgres, self.lake, shape_of=shape_of, owner=self.owner)

    def stage(self, numbers: Sequence[int], *, rows: int = 2) -> UUID:
        """Stage the next version of some files, made from what the ledger has now."""
        files = [archive_file(number) for number in numbers]
        with self.postgres.transaction() as connection:
            known = ledger.current(connection, "binance", [file.key for file in files])
            holding = {entry.data_file_id for entry in known.values()} - {None}
            former = staging.files_of(connection, sorted(number for number in holding if number is not None))
        versions = {file.key: (known[file.key].version if file.key in known else 0) + 1 for file in files}
        unit, keys = uuid4(), set(versions)
        written = self.write(files, versions, rows)
        moved = {
            number: self.bronze.without(self.table, file, keys, str(uuid4()))
            for number, file in former.items()
        }
        with self.postgres.transaction() as connection:
            (own,) = staging.add_files(connection, unit, self.table, [written])
            successors = {
                number: staging.add_files(connection, unit, self.table, [file])[0] if file else None
                for number, file in moved.items()
            }
            content = Content(
                task=GroupTask.of(files, ENDPOINT, BATCH),
                receipts=tuple(
                    Receipt(
                        key=file.key,
                        version=versions[file.key],
                        former_version=known[file.key].version if file.key in known else None,
                        sha256=f"{versions[file.key]:064}",
                        header=False,
                        rows=rows,
                        quarantined=0,
                        first_day=date(2020, 1, 1),
                        last_day=date(2020, 1, 1),
                        landing_key=file.key,
                        landing_version_id=None,
                        data_file_id=own,
                    )
                    for file in files
                ),
                moved=successors,
            )
            staging.stage(connection, StagedUnit(unit, self.table, tuple(successors), content.to_json()))
        return unit

    def compact(self) -> None:
        """Stage that all data files are merged into one."""
        with self.postgres.transaction() as connection:
            live = [Candidate(*each) for each in staging.live(connection, self.table).items()]
        if live:
            maintainer = Maintainer(self.postgres, self.lake, STORE)
            maintainer._merge(self.declared.bronze, Merge("spot", "2020-01", tuple(live)))

    def write(self, files: Sequence[ArchiveFile], versions: Mapping[str, int], rows: int) -> DataFile:
        shape = bronze_shape(self.declared.bronze)
        at = datetime(2020, 1, 1, tzinfo=UTC)
        blocks = []
        for file in files:
            version = versions[file.key]
            values = {
                name: [number + 1 for number in range(rows)]
                if name == "row_number"
                else [at] * rows
                if name.endswith("_time")
                else [version] * rows
                for name in shape.columns.names
            }
            frame = pl.DataFrame(values).cast(
                {column.name: column.polars for column in self.declared.columns}
            )
            labels = {"venue": "binance", "market": "spot", "symbol": "BTCUSDT", "interval": "1m"}
            blocks.append(Block.of(frame, {**labels, "frequency": "daily", "source_key": file.key}))
        written = write_blocks(self.lake, shape, f"spot/{uuid4()}.parquet", blocks)
        assert written is not None
        return written

    def visible(self) -> dict[str, list[int]]:
        """The versions of the rows that readers see, by file."""
        uri = self.lake.uri(self.table)
        commits = tuple(sorted(path.name for path in Path(uri, "_delta_log").glob("*.json")))
        if not commits:
            return {}
        if commits not in self.shown:
            seen: dict[str, list[int]] = {}
            for path in data_files(DeltaTable(uri))["path"]:
                for key, versions in self._rows_of(path).items():
                    seen.setdefault(key, []).extend(versions)
            self.shown = {commits: {key: sorted(versions) for key, versions in seen.items()}}
        return self.shown[commits]

    def _rows_of(self, path: str) -> dict[str, list[int]]:
        """What a data file holds; one never changes."""
        if path not in self.read:
            rows = pl.read_parquet(self.lake.uri(f"{self.table}/{path}"), columns=["source_key", "close"])
            versions = rows.group_by("source_key").agg(pl.col("close").cast(pl.Int64))
            self.read[path] = dict(versions.iter_rows())
        return self.read[path]

    def recorded(self) -> dict[str, int]:
        """The versions that the ledger has, by file."""
        with self.postgres.transaction() as connection:
            rows = connection.execute(
                "select key, version from ledger where superseded_at is null"
            ).fetchall()
        return {row["key"]: row["version"] for row in rows}

    def assert_consistent(self, rows: int = 2) -> None:
        """Each file's rows are visible once, in the version that the ledger has."""
        assert self.visible() == {key: [version] * rows for key, version in self.recorded().items()}

    def another(self, folder: Path) -> "World":
        """The same database, and another lake."""
        return replace(self, folder=folder, read={}, shown={})


def key_of(number: int) -> str:
    return archive_file(number).key
