"""Batches are carried on by workers: from the request to silver, and on by another one when a worker goes silent."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import date
from uuid import UUID

import pytest
from marketlake.archive.collection import batches, refiner
from marketlake.archive.collection.batches import BatchState, Run
from marketlake.archive.collection.orchestrator import RunEndedError
from marketlake.archive.collection.tasks import RefinementTask
from marketlake.domain.archive import Selection, Series
from marketlake.infrastructure.bus.producer import Producer
from marketlake.infrastructure.storage.stores import Lake
from marketlake.pipeline.batch.silver import Refined, refine_many
from marketlake.pipeline.serving.query import query

from tests.integration.test_collection import KEY_1, KLINES, ROWS, Platform, Watched, kline_of, platform
from tests.waiting import eventually

__all__ = ["platform"]  # the fixture


def request(platform: Platform, selection: Selection = KLINES) -> UUID:
    """Request a batch as the command line does."""
    batch_id = UUID(int=len(selection.symbols) + 1)
    with platform.postgres.transaction() as connection:
        batches.request(connection, batch_id, selection, platform.exchange.endpoint, traceparent=None)
    return batch_id


def ended(platform: Platform, batch_id: UUID) -> batches.Progress:
    eventually(lambda: platform.progress(batch_id).state.ended, within_s=60)
    return platform.progress(batch_id)


def silence(platform: Platform, run: Run) -> None:
    """Let the worker that carries a batch be silent for long."""
    with platform.postgres.transaction() as connection:
        connection.execute(
            "update worker set heartbeat_at = now() - interval '1 minute'"
            " where id = (select carrier from batch where id = %s)",
            [run.id],
        )


def producer(platform: Platform) -> closing[Producer]:
    return closing(Producer(platform.settings.event_bus, client_id="test", timeout_s=5))


def silver_rows(platform: Platform) -> int:
    (row,) = query(platform.settings, "select count(*) as n from silver.candles").to_pylist()
    return int(row["n"])


def test_what_is_requested_is_carried_from_discovery_to_silver(platform: Platform) -> None:
    batch_id = request(platform)
    assert platform.progress(batch_id).state is BatchState.REQUESTED
    with platform.working(Watched(), carrying=True):
        seen = ended(platform, batch_id)
        assert seen.complete
        assert (seen.found, seen.copied, seen.rows, seen.refined_rows) == (3, 3, ROWS, ROWS)
        assert silver_rows(platform) == ROWS
        request(platform)  # the same batch: it stays as it is
        assert platform.progress(batch_id) == seen


def test_a_selection_that_means_nothing_fails_its_batch_with_what_would(platform: Platform) -> None:
    batch_id = request(platform, Selection(venue="binance", market="spot", data_type="bookDepth"))
    with platform.working(Watched(), carrying=True):
        seen = ended(platform, batch_id)
    assert (seen.state, seen.error_code) == (BatchState.FAILED, "selection")
    assert seen.error


def test_a_worker_that_ends_leaves_its_batch_to_the_next(platform: Platform) -> None:
    batch_id = request(platform)
    platform.exchange.bandwidth = 20_000
    with platform.working(Watched(), carrying=True):
        eventually(lambda: platform.progress(batch_id).state is BatchState.COLLECTING, within_s=30)
    platform.exchange.bandwidth = None
    assert platform.progress(batch_id).state is BatchState.COLLECTING
    assert not platform.progress(batch_id).attended
    with platform.working(Watched(), carrying=True):
        seen = ended(platform, batch_id)
    assert (seen.complete, seen.found, seen.copied, seen.skipped) == (True, 3, 3, 0)


@pytest.mark.parametrize("state", [BatchState.PLANNING, BatchState.COLLECTING, BatchState.REFINING])
def test_a_batch_whose_worker_went_silent_goes_on_from_its_state(
    platform: Platform, state: BatchState
) -> None:
    run = platform.claim(lasting=False)
    with producer(platform) as sending:
        orchestrator = platform.orchestrator(run, sending)
        orchestrator.dispatch(
            platform.files()[:2] if state is BatchState.PLANNING else platform.files(), see=len
        )
        if state is not BatchState.PLANNING:
            orchestrator.enter(BatchState.COLLECTING)
        with platform.working(Watched()):
            orchestrator.wait()
        if state is BatchState.REFINING:
            orchestrator.enter(state)
    silence(platform, run)
    with platform.working(Watched(), carrying=True):
        seen = ended(platform, run.id)
    assert seen.complete
    assert (seen.found, seen.copied, seen.skipped) == (3, 3, 0), "what was planned is planned once"
    assert (seen.rows, seen.refined_rows) == (ROWS, ROWS)


def test_who_lost_a_batch_can_write_nothing_of_it(platform: Platform) -> None:
    run = platform.claim(lasting=False)
    silence(platform, run)
    with platform.postgres.transaction() as connection:
        second = batches.claim(connection, "another")
        assert second is not None
        assert (second.id, second.resumed) == (run.id, True)
        batches.fail(connection, run, "unexpected", "too late")
    with producer(platform) as sending:
        orchestrator = platform.orchestrator(run, sending)
        for attempt in (
            lambda: orchestrator.dispatch(platform.files(), see=len),
            lambda: orchestrator.enter(BatchState.COLLECTING),
            lambda: orchestrator.refine(KLINES),
        ):
            with pytest.raises(RunEndedError):
                attempt()
    seen = platform.progress(run.id)
    assert (seen.state, seen.found, seen.open_tasks) == (BatchState.PLANNING, 0, 0)


def test_one_worker_carries_a_batch_at_a_time(platform: Platform) -> None:
    platform.claim()
    with platform.postgres.transaction() as connection:
        assert batches.claim(connection, "another") is None


def test_a_series_that_cannot_be_refined_stops_no_other_and_is_told(platform: Platform) -> None:
    def refine(lake: Lake, wanted: Mapping[Series, Iterable[date]]) -> list[Refined]:
        if any(series.interval == "1h" for series in wanted):
            raise ZeroDivisionError("a defect")
        return refine_many(lake, wanted)

    first, second = request(platform), UUID(int=99)
    with platform.working(Watched(), refine=refine, carrying=True):
        seen = ended(platform, first)
        assert silver_rows(platform) == ROWS - 24
    assert (seen.state, seen.complete, seen.failed, seen.unrefined) == (BatchState.DONE, False, 0, 1)
    assert platform.failures(first) == {"spot klines BTCUSDT 1h": "unexpected"}
    with platform.postgres.transaction() as connection:
        batches.request(connection, second, KLINES, platform.exchange.endpoint, traceparent=None)
    with platform.working(Watched(), carrying=True):
        assert ended(platform, second).complete
    assert silver_rows(platform) == ROWS


def test_what_was_refined_stays_when_a_later_commit_of_the_task_fails(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refiner, "ROWS_OF_A_COMMIT", 1440)
    asked: list[set[str | None]] = []

    def refine(lake: Lake, wanted: Mapping[Series, Iterable[date]]) -> list[Refined]:
        asked.append({series.interval for series in wanted})
        if len(asked) > 1:
            raise ZeroDivisionError("a defect")
        return refine_many(lake, wanted)

    first, second = request(platform), UUID(int=99)
    with platform.working(Watched(), refine=refine, carrying=True):
        assert not ended(platform, first).complete
    before = silver_rows(platform)
    assert 0 < before < ROWS
    with platform.postgres.transaction() as connection:
        row = connection.execute("select sum(rows) as n from ledger where refined_at is null").fetchone()
        batches.request(connection, second, KLINES, platform.exchange.endpoint, traceparent=None)
    assert row is not None
    assert row["n"] == ROWS - before
    with platform.working(Watched(), carrying=True):
        assert ended(platform, second).complete
    assert silver_rows(platform) == ROWS


def test_days_of_all_versions_since_the_last_that_was_refined_are_rewritten(platform: Platform) -> None:
    """A file came three times, its second version was never refined, and the third has rows of another day."""
    with platform.working(Watched(), carrying=True):
        ended(platform, request(platform))
    day_ms, first_ms = 86_400_000, 1_577_836_800_000
    for number, day in enumerate((40, 80), start=10):
        platform.exchange.publish_csv(KEY_1, kline_of(first_ms + day * day_ms))
        run = platform.claim()
        with producer(platform) as sending, platform.working(Watched()):
            orchestrator = platform.orchestrator(run, sending)
            orchestrator.dispatch(platform.files(), see=len)
            orchestrator.wait()
        with platform.postgres.transaction() as connection:
            batches.fail(connection, run, "test", f"version {number} is not refined")
    batch_id = UUID(int=99)
    with platform.postgres.transaction() as connection:
        batches.request(connection, batch_id, KLINES, platform.exchange.endpoint, traceparent=None)
    with platform.working(Watched(), carrying=True):
        assert ended(platform, batch_id).complete
    rows = query(
        platform.settings,
        "select cast(open_time as date) as day, count(*) as n from silver.candles where interval = '1m' group by 1"
        " order by 1",
    ).to_pylist()
    assert [(str(row["day"]), row["n"]) for row in rows] == [("2020-01-02", 1440), ("2020-03-21", 1)]


def test_the_task_of_some_series_is_the_same_in_the_same_batch() -> None:
    series = [
        Series(venue="binance", market="spot", data_type="klines", symbol=symbol, interval="1m")
        for symbol in ("A", "B")
    ]
    task = RefinementTask.of(series, UUID(int=1))
    assert task.id == RefinementTask.of(series, UUID(int=1)).id
    assert task.id not in {
        RefinementTask.of(series[:1], UUID(int=1)).id,
        RefinementTask.of(series, UUID(int=2)).id,
    }
    assert list(task.named()) == series
    assert RefinementTask.model_validate(task.model_dump(mode="json")) == task
