import threading
from typing import Any

import pytest
from marketlake.infrastructure.bus import outbox
from marketlake.infrastructure.bus.connection import EventBusRefusedError, EventBusUnavailableError
from marketlake.infrastructure.bus.outbox import Relay
from marketlake.infrastructure.postgres import DatabaseUnavailableError
from marketlake.retry import Backoff


class TroubledRelay(Relay):
    """A relay whose every attempt but the last fails."""

    def __init__(self, troubles: list[Exception], stop: threading.Event) -> None:
        nothing: Any = None
        super().__init__(nothing, nothing)
        self.troubles = troubles
        self._stop = stop

    def drain(self) -> int:
        if self.troubles:
            raise self.troubles.pop(0)
        self._stop.set()
        return 0


def test_a_relay_outlives_every_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_IDLE_S", 0.001)
    monkeypatch.setattr(outbox, "_BACKOFF", Backoff(first_wait_s=0.001))
    stop = threading.Event()
    relay = TroubledRelay(
        [EventBusUnavailableError("away"), EventBusRefusedError("no"), DatabaseUnavailableError("away")], stop
    )
    relay.run(stop)
    assert relay.troubles == []
