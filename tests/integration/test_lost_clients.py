"""A client that is lost with its node: its session, and what the session locks, end within half a minute."""

import os
import socket
import time

import pytest
from marketlake.infrastructure.postgres import connections
from marketlake.infrastructure.postgres.connections import Connection, Postgres
from marketlake.settings import Database

LOCK = 4711
_TCP_REPAIR = 19
"""Linux's option of a socket that is closed without a word to the other side."""


def test_both_sides_of_a_connection_ask_whether_the_other_lives(postgres: Database) -> None:
    with Postgres(postgres, application="test") as database, database.session() as session:
        shown = {
            name: _shown(session, name)
            for name in (
                "tcp_keepalives_idle",
                "tcp_keepalives_interval",
                "tcp_keepalives_count",
                "tcp_user_timeout",
            )
        }
        with socket.socket(fileno=os.dup(session.fileno())) as client:
            asks = client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            after_s = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            unconfirmed_ms = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert shown == {
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "25000",
    }
    assert (asks, after_s, unconfirmed_ms) == (1, 10, 25_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="closing a socket without a word takes root")
def test_the_locks_of_a_lost_client_are_free_soon(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_IDLE_S", 1)
    monkeypatch.setattr(connections, "_INTERVAL_S", 1)
    lost = Postgres(postgres, application="lost")
    with Postgres(postgres, application="finder") as finder, finder.session() as session:
        with lost.session() as held:
            held.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            time.sleep(
                0.5
            )  # the client's system has confirmed the answer: the server has nothing left to send
            # From here on nothing answers for the client, as if its machine had lost its power.
            with socket.socket(fileno=os.dup(held.fileno())) as client:
                client.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        assert not _locks(session), "nobody has told the server"
        deadline = time.monotonic() + 15
        while not _locks(session):
            assert time.monotonic() < deadline, "the server still believes in the lost client"
            time.sleep(0.1)


def _locks(session: Connection) -> bool:
    row = session.execute("SELECT pg_try_advisory_lock(%s) AS got", (LOCK,)).fetchone()
    return row is not None and bool(row["got"])


def _shown(session: Connection, name: str) -> str:
    row = session.execute(f"SHOW {name}").fetchone()
    assert row is not None
    return str(row[name])
