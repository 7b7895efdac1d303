from uuid import UUID

import pytest
from marketlake.archive.collection.tasks import FileTask, selection_from_json, selection_to_json
from marketlake.domain.archive import Frequency, Selection
from marketlake.infrastructure.bus.envelope import Event
from marketlake.settings import VenueEndpoint
from pydantic import ValidationError

from tests.unit.marketlake.archive.samples import archive_file, ledger_entry

ENDPOINT = VenueEndpoint(endpoint="http://127.0.0.1:1", bucket="b")
BATCH = UUID(int=7)


def test_a_task_travels_through_an_event_unchanged() -> None:
    task = FileTask.of(archive_file(1), ENDPOINT, BATCH)
    event = Event.from_message(task.requested("00-" + "1" * 32 + "-" + "2" * 16 + "-01").to_message())
    assert FileTask.model_validate(event.data) == task
    assert event.partition_key == f"binance/{task.file.key}"


def test_the_same_file_in_the_same_batch_is_the_same_task() -> None:
    first, again = (FileTask.of(archive_file(1), ENDPOINT, BATCH) for _ in range(2))
    assert first.id == again.id
    assert FileTask.of(archive_file(2), ENDPOINT, BATCH).id != first.id
    assert FileTask.of(archive_file(1), ENDPOINT, UUID(int=8)).id != first.id


def test_what_became_of_a_task_is_told_under_an_id_that_a_repetition_shares() -> None:
    task = FileTask.of(archive_file(1), ENDPOINT, BATCH)
    told = [task.collected(ledger_entry(task.file), "copied", None) for _ in range(2)]
    assert told[0].id == told[1].id
    assert told[0].data["rows"] == 1440
    failed = task.failed("checksum-mismatch", "what to do", None)
    assert failed.id != told[0].id
    assert FileTask.model_validate(failed.data["task"]) == task


def test_a_selection_survives_json() -> None:
    selection = Selection(
        venue="binance",
        market="spot",
        symbols=("A", "B"),
        frequency=Frequency.MONTHLY,
        start=archive_file(1).start,
        end=archive_file(3).end,
    )
    assert selection_from_json(selection_to_json(selection)) == selection


def test_what_is_no_selection_is_refused() -> None:
    with pytest.raises(ValidationError, match="venue"):
        selection_from_json({"market": "spot"})
