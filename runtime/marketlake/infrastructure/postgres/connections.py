"""Connections to the platform's PostgreSQL."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from psycopg.adapt import Dumper
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_dumps

from marketlake.errors import MarketlakeError
from marketlake.settings import Database

Connection = psycopg.Connection[DictRow]
"""A connection whose rows are dictionaries."""

CONNECT_TIMEOUT_S = 5
_IDLE_S, _INTERVAL_S, _PROBES = 10, 5, 3
"""How long either side lets the other be silent before it asks, how often it asks again, and how many times."""


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL's text and jsonb hold any character of UTF-8 but NUL; a lone surrogate has no UTF-8 form."""


class DatabaseUnavailableError(MarketlakeError):
    """The database does not answer, or a connection broke; the same work may succeed later."""

    code = "database-unavailable"
    transient = True


class Postgres:
    """Connections that are kept between uses, and sessions for locks that outlive a transaction.

    Text is stored with U+FFFD in the place of what PostgreSQL cannot hold, in values and inside JSON: an error
    message may quote any byte of a file.

    No thread is behind it: whoever needs a connection while the database is away gets an error at once, and
    one as soon as it is back. Every outage shows as :class:`DatabaseUnavailableError`, whatever the driver
    calls it. The password goes to the driver only, never into a message. Threads may share an instance.
    """

    def __init__(self, database: Database, *, application: str, kept: int = 4) -> None:
        self._database = database
        self._place = f"{database.name} at {database.host}:{database.port}"
        self._parameters: dict[str, Any] = {
            "host": database.host,
            "port": database.port,
            "dbname": database.name,
            "user": database.user,
            "password": database.password.get_secret_value(),
            "application_name": application,
            "connect_timeout": CONNECT_TIMEOUT_S,
            **_keepalive(),
        }
        self._kept = kept
        self._lock = threading.Lock()
        self._idle: list[Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is idle; connections in use close when they are given back."""
        with self._lock:
            self._kept = 0
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction: committed at the end, rolled back when anything is raised.

        Raises:
            DatabaseUnavailableError: no connection could be had, or it broke.
        """
        with self._outage_named():
            connection = self._take()
            try:
                with connection.transaction():
                    yield connection
            finally:
                self._give_back(connection)

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """Yield a connection of its own in autocommit mode, for as long as the context lasts.

        What it holds (advisory locks) is released the moment the process dies, however it dies.

        Raises:
            DatabaseUnavailableError: no connection could be had, or it broke.
        """
        with self._outage_named():
            connection = self._connect()
            try:
                yield connection
            finally:
                connection.close()

    def _connect(self) -> Connection:
        with self._database.tls() as tls:
            connection = psycopg.connect(**self._parameters, **tls, row_factory=dict_row, autocommit=True)
        connection.adapters.register_dumper(str, _StorableText)
        set_json_dumps(_storable_json, connection)
        return connection

    def _take(self) -> Connection:
        """Return an idle connection that still answers, or a new one."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect()
            try:
                connection.execute("")
            except psycopg.Error:
                connection.close()
            else:
                return connection

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if not connection.closed and len(self._idle) < self._kept:
                self._idle.append(connection)
                return
        connection.close()

    @contextmanager
    def _outage_named(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DatabaseUnavailableError(
                f"the database {self._place} is not available: {reason}. "
                "Look at `marketlake status`; `make up` starts what was stopped."
            ) from error


def _storable(value: Any) -> Any:
    """The same text, or JSON value, with U+FFFD for each character that PostgreSQL cannot hold."""
    match value:
        case str():
            return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
        case dict():
            return {_storable(name): _storable(item) for name, item in value.items()}
        case list() | tuple():
            return [_storable(item) for item in value]
        case _:
            return value


def _storable_json(value: Any) -> str:
    text = json.dumps(value)
    if "\\u0000" in text or "\\ud" in text:  # NUL, or a half of a pair, which may stand by itself
        return json.dumps(_storable(value))
    return text


class _StorableText(Dumper):
    """Sends text without a type, as psycopg does by itself: the server infers it from the statement."""

    def dump(self, obj: str) -> bytes:
        return str(_storable(obj)).encode()


def _keepalive() -> dict[str, Any]:
    """Return connection parameters by which both sides notice within half a minute that the other is lost.

    The server's half matters more: by its system's defaults it keeps the session of a lost node, and the locks that
    the session holds, for two hours. `tcp_user_timeout` ends a connection on which sent data stays unconfirmed, for
    which keepalive probes do not wait.
    """
    lost_ms = (_IDLE_S + _PROBES * _INTERVAL_S) * 1000
    server = {
        "tcp_keepalives_idle": _IDLE_S,
        "tcp_keepalives_interval": _INTERVAL_S,
        "tcp_keepalives_count": _PROBES,
        "tcp_user_timeout": lost_ms,
    }
    return {
        "keepalives": 1,
        "keepalives_idle": _IDLE_S,
        "keepalives_interval": _INTERVAL_S,
        "keepalives_count": _PROBES,
        "tcp_user_timeout": lost_ms,
        "options": " ".join(f"-c {name}={value}" for name, value in server.items()),
    }
