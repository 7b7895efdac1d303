"""Connections to the platform's PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from marketlake.settings import Database

Connection = psycopg.Connection[DictRow]
"""A connection whose rows are dictionaries."""

CONNECT_TIMEOUT_S = 5
_KEEPALIVE = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


class DatabaseUnavailableError(Exception):
    """The database does not answer, or a connection broke; the same work may succeed later."""


class Postgres:
    """A small pool of connections, and sessions beside it for locks that outlive a transaction.

    Every outage shows as :class:`DatabaseUnavailableError`, whatever the driver calls it. The password goes
    to the driver only, never into a message.
    """

    def __init__(self, database: Database, *, application: str, connections: int = 4) -> None:
        self._place = f"{database.name} at {database.host}:{database.port}"
        self._parameters: dict[str, Any] = {
            "host": database.host,
            "port": database.port,
            "dbname": database.name,
            "user": database.user,
            "password": database.password.get_secret_value(),
            "application_name": application,
            "connect_timeout": CONNECT_TIMEOUT_S,
            **_KEEPALIVE,
        }
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            kwargs=self._parameters | {"row_factory": dict_row},
            connection_class=psycopg.Connection[DictRow],
            check=ConnectionPool.check_connection,
            min_size=0,
            max_size=connections,
            max_idle=60,
            timeout=CONNECT_TIMEOUT_S,
            open=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pool; sessions end by themselves."""
        self._pool.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back when anything is raised.

        Raises:
            DatabaseUnavailableError: no connection could be had, or it broke.
        """
        with self._outage_named(), self._pool.connection() as connection:
            yield connection

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection of its own in autocommit mode, for as long as the context lasts.

        What it holds (advisory locks) is released the moment the process dies, however it dies.

        Raises:
            DatabaseUnavailableError: no connection could be had, or it broke.
        """
        with self._outage_named():
            connection = psycopg.connect(**self._parameters, row_factory=dict_row, autocommit=True)
            try:
                yield connection
            finally:
                connection.close()

    @contextmanager
    def _outage_named(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DatabaseUnavailableError(
                f"the database {self._place} is not available: {reason}. "
                "Look at `marketlake status`; `make up` starts what was stopped."
            ) from error
