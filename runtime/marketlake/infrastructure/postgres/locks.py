"""Locks that all processes of the platform respect, and that die with their holder."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from marketlake.errors import MarketlakeError
from marketlake.infrastructure.postgres.connections import Connection, Postgres

_POLL_S = 0.2

Wait = Callable[[float], bool]
"""Waits that many seconds; true means: give up. ``threading.Event().wait`` is one."""


class LockHeldError(MarketlakeError):
    """Another session holds the lock, and the wait was ended."""

    code = "locked"
    transient = True


@contextmanager
def hold(postgres: Postgres, *names: str, wait: Wait) -> Iterator[Connection]:
    """Hold the lock of that name on a session of its own.

    Args:
        postgres: the database.
        names: what is locked, e.g. ``"file", venue, key``.
        wait: called between attempts.

    Yields:
        The session, in autocommit mode. A write through it proves that the lock is still held: the server
        releases the lock when it sees the session's connection end.

    Raises:
        LockHeldError: `wait` said so.
        DatabaseUnavailableError: the session could not be had, or broke.
    """
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    number = int.from_bytes(digest[:8], "big", signed=True)
    with postgres.session() as session:
        while True:
            row = session.execute("select pg_try_advisory_lock(%s) as mine", [number]).fetchone()
            if row and row["mine"]:
                break
            if wait(_POLL_S):
                raise LockHeldError(f"gave up waiting for the lock of {' '.join(names)}")
        yield session
