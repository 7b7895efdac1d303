"""A Delta table's log, as the one process that commits to the table writes it.

Each commit carries the next number of a sequence as the version of the application :data:`APPLICATION`. A commit is
tried once, at the version behind the one that was read: deltalake would otherwise rebase it onto whatever another
writer committed meanwhile, and a removal of a file that is gone would succeed (both tried with deltalake 1.6).
"""

from collections.abc import Collection, Iterable, Sequence

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError

from marketlake.infrastructure.storage.delta import (
    DataFile,
    TableShape,
    addition,
    data_files,
    open_table,
    removal,
    widen,
)
from marketlake.infrastructure.storage.errors import CommitConflictError
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error

APPLICATION = "marketlake"


class TableLog:
    """The log of one table, as it was when it was read last.

    Args:
        lake: where the table is.
        shape: the table; it is made if it is missing.
    """

    def __init__(self, lake: Lake, shape: TableShape) -> None:
        self._lake = lake
        self._shape = shape
        self._table: DeltaTable | None = None

    def read(self) -> int:
        """Bring it up to date, and return the number of the last commit that it holds; 0 before the first.

        Raises:
            StorageError: the store failed.
        """
        table, self._table = self._table, None
        try:
            if table is None:
                table = open_table(self._lake, self._shape)
            else:
                table.update_incremental()
            number = table.transaction_version(APPLICATION) or 0
        except STORE_ERRORS as error:
            raise storage_error(error, f"reading the log of {self._shape.path}") from error
        self._table = table
        return number

    def gone(self, paths: Iterable[str]) -> set[str]:
        """Return which of these data files the table does not have."""
        wanted = set(paths)
        return wanted - set(data_files(self._read())["path"]) if wanted else set()

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
        try:
            self._read().create_write_transaction(
                [
                    *(removal(file.key, file.size, data_change=file.key not in arranged) for file in removed),
                    *(addition(file, data_change=file.key not in arranged) for file in added),
                ],
                "append",
                self._shape.schema,
                [],
                commit_properties=CommitProperties(
                    max_commit_retries=0, app_transactions=[Transaction(APPLICATION, sequence)]
                ),
            )
        except CommitFailedError as error:
            raise CommitConflictError(
                f"{self._shape.path}: another writer committed before number {sequence}: {error}"
            ) from error
        except STORE_ERRORS as error:
            raise storage_error(error, f"committing to {self._shape.path}") from error

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
        self.read()
        return last

    def widen(self) -> None:
        """Add columns that the shape has and the table has not, in a commit of their own.

        Raises:
            TableSchemaError: a column of the table is of another type than the shape's.
            CommitConflictError: another writer was first: try again.
            StorageError: the store failed.
        """
        try:
            widen(self._read(), self._shape)
        except CommitFailedError as error:
            raise CommitConflictError(
                f"{self._shape.path}: another writer committed first: {error}"
            ) from error
        self.read()

    def _read(self) -> DeltaTable:
        if self._table is None:
            self.read()
        if self._table is None:
            raise AssertionError("it was read")
        return self._table
