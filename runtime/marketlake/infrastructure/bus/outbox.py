"""The transactional outbox: an event is written with the rows that it describes, and published afterwards.

Either both are there or neither. The relay publishes in the order of writing and forgets an event
only when the brokers have confirmed it; killed in between, it publishes the event once more, with the same id.
"""

import threading
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from psycopg.types.json import Jsonb

from marketlake.infrastructure.bus.connection import EventBusRefusedError, EventBusUnavailableError
from marketlake.infrastructure.bus.envelope import Event
from marketlake.infrastructure.bus.producer import Producer
from marketlake.infrastructure.postgres import Connection, DatabaseUnavailableError, Postgres
from marketlake.retry import Backoff, RetryStoppedError, retry

_LOCK = 0x6D61726B65740002
"""Advisory lock of the one relay that publishes at a time, which keeps the order."""
_BATCH = 500
_IDLE_S = 1.0
_BACKOFF = Backoff(first_wait_s=2.0, longest_wait_s=10.0)
_OUTAGES = (EventBusUnavailableError, EventBusRefusedError, DatabaseUnavailableError)


def put(connection: Connection, topic: str, events: Iterable[Event]) -> int:
    """Write events within the caller's transaction; returns how many."""
    rows = [(topic, Jsonb(event.model_dump(mode="json"))) for event in events]
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into outbox (topic, event) values (%s, %s)",
            rows,
        )
    return len(rows)


class Relay:
    """Publishes what lies in the outbox. Any number of processes may run one; one at a time publishes."""

    def __init__(self, postgres: Postgres, producer: Producer) -> None:
        self._postgres = postgres
        self._producer = producer

    def drain(self) -> int:
        """Publish everything, unless another relay is at it; returns how many events.

        Raises:
            EventBusUnavailableError: the events stay in the outbox.
            DatabaseUnavailableError: the same.
        """
        total = 0
        while True:
            published = self._publish_batch()
            total += published
            if published < _BATCH:
                return total

    def run(self, stop: threading.Event) -> None:
        """Publish until `stop` is set; an outage is waited out with growing pauses."""
        while not stop.wait(_IDLE_S):
            try:
                retry(self.drain, backoff=_BACKOFF, on=_OUTAGES, wait=stop.wait)
            except RetryStoppedError:
                return

    def _publish_batch(self) -> int:
        with self._postgres.transaction() as connection:
            turn = connection.execute("select pg_try_advisory_xact_lock(%s) as mine", [_LOCK]).fetchone()
            if not (turn and turn["mine"]):
                return 0
            rows = connection.execute(
                "select id, topic, event from outbox order by id limit %s", [_BATCH]
            ).fetchall()
            for topic, group in groupby(rows, key=itemgetter("topic")):
                self._producer.publish(
                    topic, [Event.model_validate(row["event"]).to_message() for row in group]
                )
            connection.execute("delete from outbox where id = any(%s)", [[row["id"] for row in rows]])
            return len(rows)
