"""Batches as a real Prefect server shows them."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import BatchState, Run
from marketlake.domain.archive import Selection
from marketlake.infrastructure.postgres import Postgres, migrate
from marketlake.settings import WorkflowEngine
from marketlake.workers import assignments
from marketlake.workflows.mirror import Mirror

from tests import servers
from tests.waiting import eventually

KLINES = Selection(venue="binance", market="spot", data_type="klines")


@dataclass
class World:
    """A database of batches, and Prefect."""

    postgres: Postgres
    engine: WorkflowEngine
    prefect: httpx.Client

    def request(self) -> UUID:
        batch_id = uuid4()
        with self.postgres.transaction() as connection:
            batches.request(connection, batch_id, KLINES, None, traceparent=None)
        return batch_id

    def claim(self) -> Run:
        with self.postgres.transaction() as connection:
            assignments.beat(connection, "carrier", host="test", pid=1, concurrency=1)
            run = batches.claim(connection, "carrier")
        assert run is not None
        return run

    def shown(self, batch_id: UUID) -> dict[str, Any]:
        """The flow run that shows a batch; empty as long as there is none."""
        with self.postgres.transaction() as connection:
            flow_run = batches.flow_run(connection, batch_id)
        return self.prefect.get(f"/flow_runs/{flow_run}").json() if flow_run else {}

    def batch_state(self, batch_id: UUID) -> BatchState | None:
        """The batch's own state."""
        with self.postgres.transaction() as connection:
            seen = batches.progress(connection, batch_id)
        return seen.state if seen else None

    def state(self, batch_id: UUID) -> tuple[str, str] | None:
        """The state that is shown of it."""
        run = self.shown(batch_id)
        return (run["state_type"], run["state"]["name"]) if run else None


@pytest.fixture
def world(prefect: WorkflowEngine, postgres_server: servers.Postgres) -> Iterator[World]:
    database = postgres_server.create_database(f"mirror{uuid4().hex[:8]}")
    assert prefect.auth_string
    user, _, password = prefect.auth_string.get_secret_value().partition(":")
    with (
        Postgres(database, application="test") as postgres,
        httpx.Client(base_url=prefect.api_url, auth=(user, password), timeout=20) as client,
    ):
        migrate(postgres)
        yield World(postgres, prefect, client)


@pytest.fixture
def mirrored(world: World) -> Iterator[World]:
    """The same, with two mirrors, of which one works."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=Mirror(world.postgres, world.engine).run, args=(stop,)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    yield world
    stop.set()
    for thread in threads:
        thread.join(15)
        assert not thread.is_alive()


def test_a_batch_is_shown_from_its_request_to_its_end(mirrored: World) -> None:
    batch_id = mirrored.request()
    eventually(lambda: mirrored.state(batch_id) == ("RUNNING", "Requested"))
    run = mirrored.claim()
    eventually(lambda: mirrored.state(batch_id) == ("RUNNING", "Planning"))
    for state in (BatchState.COLLECTING, BatchState.REFINING, BatchState.DONE):
        with mirrored.postgres.transaction() as connection:
            assert batches.enter(connection, run, state)
    eventually(lambda: mirrored.state(batch_id) == ("COMPLETED", "Done"))
    shown = mirrored.shown(batch_id)
    assert (shown["name"], shown["tags"]) == (
        f"collection {str(batch_id)[:8]}",
        ["binance", "spot", "klines"],
    )
    of_run = {"flow_runs": {"id": {"any_": [shown["id"]]}}}
    eventually(lambda: mirrored.prefect.post("/artifacts/filter", json=of_run).json())
    (artifact,) = mirrored.prefect.post("/artifacts/filter", json=of_run).json()
    assert "| files found | 0 |" in artifact["data"]


def test_a_batch_that_fails_is_shown_with_the_reason(mirrored: World) -> None:
    batch_id = mirrored.request()
    run = mirrored.claim()
    with mirrored.postgres.transaction() as connection:
        batches.fail(connection, run, "listing-broken", "the venue lists nothing that can be read")
    eventually(lambda: mirrored.state(batch_id) == ("FAILED", "Failed"))
    assert mirrored.shown(batch_id)["state"]["message"] == "the venue lists nothing that can be read"


@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED"])
def test_who_cancels_the_flow_run_cancels_the_batch(mirrored: World, state: str) -> None:
    batch_id = mirrored.request()
    eventually(lambda: mirrored.state(batch_id))
    body = {"state": {"type": state, "name": state.title()}, "force": True}
    mirrored.prefect.post(
        f"/flow_runs/{mirrored.shown(batch_id)['id']}/set_state", json=body
    ).raise_for_status()
    eventually(lambda: mirrored.batch_state(batch_id) is BatchState.CANCELLED)
    eventually(lambda: mirrored.state(batch_id) == ("CANCELLED", "Cancelled"))


def test_what_an_engine_that_is_away_misses_is_shown_when_it_is_back(world: World) -> None:
    batch_id = world.request()
    away = world.engine.model_copy(update={"api_url": "http://127.0.0.1:1/api"})
    stop = threading.Event()
    thread = threading.Thread(target=Mirror(world.postgres, away).run, args=(stop,))
    thread.start()
    stop.wait(1)
    assert thread.is_alive(), "it waits"
    stop.set()
    thread.join(15)
    assert world.state(batch_id) is None
    again = threading.Event()
    second = threading.Thread(target=Mirror(world.postgres, world.engine).run, args=(again,))
    second.start()
    eventually(lambda: world.state(batch_id) == ("RUNNING", "Requested"))
    again.set()
    second.join(15)
    assert not second.is_alive()
