"""A Delta table's log, as the one process that commits to the table writes it.

Each commit carries the next number of a sequence as the version of the application :data:`APPLICATION`. It is one
object, put right behind the version that was read, if none is there (Delta's protocol: actions as lines of JSON). What
a commit costs so depends on what is in it, not on the table's history: deltalake goes through all data files of a
table whenever it commits or brings itself up to date, and keeps them in memory (33,000 of them: 240 ms each, and
60 MiB; tried with 1.6). It would also rebase a commit onto whatever another writer committed meanwhile, and let a
removal of a file that is gone succeed. Creating tables, columns, checkpoints and reading are deltalake's.
"""

import json
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import obstore
from deltalake.exceptions import CommitFailedError
from obstore.exceptions import AlreadyExistsError

from marketlake.infrastructure.storage.delta import (
    DataFile,
    TableShape,
    data_files,
    open_table,
    widen,
)
from marketlake.infrastructure.storage.errors import CommitConflictError
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error

APPLICATION = "marketlake"
CHECKPOINT_EVERY = 50
"""Commits between two checkpoints."""
_COMMIT = re.compile(r"/(\d{20})\.json$")


class TableLog:
    """The log of one table, as it was when it was read last.

    Args:
        lake: where the table is.
        shape: the table; it is made if it is missing.
    """

    def __init__(self, lake: Lake, shape: TableShape) -> None:
        self._lake = lake
        self._shape = shape
        self._folder = f"{shape.path}/_delta_log"
        self._version: int | None = None
        self._checkpoint = 0
        self.number = 0
        """Of the last commit that it held when it was read."""

    def read(self) -> int:
        """Bring it up to date, and return the number of the last commit that it holds; 0 before the first.

        Raises:
            StorageError: the store failed.
        """
        try:
            if self._version is None:
                self._version, self.number = self._opened()
            elif newer := self._versions(after=self._version):
                self.number = self._number_among(newer) or self.number
                self._version = newer[-1]
        except STORE_ERRORS as error:
            raise storage_error(error, f"reading the log of {self._shape.path}") from error
        return self.number

    def gone(self, paths: Iterable[str]) -> set[str]:
        """Return which of these data files the table did not have when it was read last.

        It is deltalake that reads them, all there are: 0.3 s and 60 MiB where there are 33,000.
        """
        wanted = set(paths)
        if not wanted:
            return set()
        table = open_table(self._lake, self._shape, self._version)
        return wanted - set(data_files(table)["path"])

    def commit(
        self,
        sequence: int,
        added: Sequence[DataFile],
        removed: Sequence[DataFile],
        *,
        arranged: Collection[str] = (),
    ) -> None:
        """Commit once, right behind what was read last.

        After any error it is unknown whether the log holds the commit: :meth:`read` tells.

        Args:
            sequence: number of the commit.
            added: data files that lie in the store.
            removed: data files of the table.
            arranged: keys of those among both whose rows are only arranged anew, which readers of changes pass over.

        Raises:
            CommitConflictError: another writer was first.
            StorageError: the store failed.
        """
        if self._version is None:
            self.read()
        version = (self._version or 0) + 1
        actions = _actions(sequence, added, removed, arranged)
        body = "".join(json.dumps(action, separators=(",", ":")) + "\n" for action in actions)
        key = f"{self._folder}/{version:020}.json"
        try:
            obstore.put(self._lake.bucket, key, body.encode(), mode="create", use_multipart=False)
        except AlreadyExistsError as error:
            raise CommitConflictError(
                f"{self._shape.path}: another writer committed before number {sequence}: version {version} is there"
            ) from error
        except STORE_ERRORS as error:
            raise storage_error(error, f"committing to {self._shape.path}") from error
        self._version, self.number = version, sequence

    def fence(self) -> int:
        """Commit nothing under the last number, so that a commit of a former writer that is on its way fails.

        Returns:
            the last number.

        Raises:
            CommitConflictError: that writer was first: try again.
            StorageError: the store failed.
        """
        last = self.read()
        self.commit(last, [], [])
        return last

    def widen(self) -> None:
        """Add columns that the shape has and the table has not, in a commit of their own.

        Raises:
            TableSchemaError: a column of the table is of another type than the shape's.
            CommitConflictError: another writer was first: try again.
            StorageError: the store failed.
        """
        try:
            widen(open_table(self._lake, self._shape), self._shape)
        except CommitFailedError as error:
            raise CommitConflictError(
                f"{self._shape.path}: another writer committed first: {error}"
            ) from error
        self.read()

    def shorten(self) -> bool:
        """Write a checkpoint if there was none for :data:`CHECKPOINT_EVERY` commits; return whether one was due.

        Raises:
            StorageError: the store failed; readers have more to read.
        """
        if self._version is None or self._version - self._checkpoint < CHECKPOINT_EVERY:
            return False
        try:
            open_table(self._lake, self._shape).create_checkpoint()
        except STORE_ERRORS as error:
            raise storage_error(error, f"writing a checkpoint of {self._shape.path}") from error
        self._checkpoint = self._version
        return True

    def _opened(self) -> tuple[int, int]:
        """The newest version, and the last number."""
        self._checkpoint = self._last_checkpoint()
        versions = self._versions(after=self._checkpoint - 1)
        number = self._number_among(versions)
        if (
            number is None
        ):  # no commit is ours since the checkpoint, all are cleaned up, or the table is missing
            table = open_table(self._lake, self._shape)
            return table.version(), table.transaction_version(APPLICATION) or 0
        return versions[-1], number

    def _last_checkpoint(self) -> int:
        """The version of the newest checkpoint; 0 if there is none."""
        try:
            told = obstore.get(self._lake.bucket, f"{self._folder}/_last_checkpoint").bytes()
        except FileNotFoundError:
            return 0
        return int(json.loads(bytes(told))["version"])

    def _versions(self, *, after: int) -> list[int]:
        """The commits behind a version, in order."""
        offset = f"{self._folder}/{after:020}.json" if after >= 0 else None
        pages = obstore.list(self._lake.bucket, f"{self._folder}/", offset=offset)
        found = (_COMMIT.search(entry["path"]) for page in pages for entry in page)
        return sorted(int(match[1]) for match in found if match)

    def _number_among(self, versions: Sequence[int]) -> int | None:
        """The number of the last of these commits that has one."""
        for version in reversed(versions):
            body = obstore.get(self._lake.bucket, f"{self._folder}/{version:020}.json").bytes()
            for line in bytes(body).splitlines():
                transaction = json.loads(line).get("txn", {}) if b'"txn"' in line else {}
                if transaction.get("appId") == APPLICATION:
                    return int(transaction["version"])
        return None


def transaction(sequence: int) -> dict[str, Any]:
    """Return the action by which a commit tells its number."""
    return {"appId": APPLICATION, "version": sequence, "lastUpdated": time.time_ns() // 1_000_000}


def _actions(
    sequence: int, added: Iterable[DataFile], removed: Iterable[DataFile], arranged: Collection[str]
) -> Iterator[dict[str, Any]]:
    """A commit's actions, as Delta's protocol has them (section "Actions")."""
    now = time.time_ns() // 1_000_000
    yield {
        "commitInfo": {
            "timestamp": now,
            "operation": "WRITE",
            "operationParameters": {"mode": "Append"},
            "engineInfo": APPLICATION,
        }
    }
    yield {"txn": transaction(sequence)}
    for file in removed:
        yield {
            "remove": {
                "path": quote(file.key),
                "deletionTimestamp": now,
                "dataChange": file.key not in arranged,
                "extendedFileMetadata": True,
                "partitionValues": {},
                "size": file.size,
            }
        }
    for file in added:
        yield {
            "add": {
                "path": quote(file.key),
                "partitionValues": {},
                "size": file.size,
                "modificationTime": now,
                "dataChange": file.key not in arranged,
                "stats": file.statistics,
            }
        }
