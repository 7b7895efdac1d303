from dataclasses import replace
from uuid import UUID

import pytest
from marketlake.archive.collection.tasks import GroupTask, requested, selection_from_json, selection_to_json
from marketlake.domain.archive import Frequency, Selection
from marketlake.infrastructure.bus.envelope import Event
from marketlake.settings import VenueEndpoint
from marketlake.workers.assignments import FileFailure
from pydantic import ValidationError

from tests.unit.marketlake.archive.samples import archive_file, ledger_entry

ENDPOINT = VenueEndpoint(endpoint="http://127.0.0.1:1", bucket="b")
BATCH = UUID(int=7)
FILES = [archive_file(day) for day in (1, 2, 3)]
TRACEPARENT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


def test_a_task_is_kept_as_json_unchanged() -> None:
    task = GroupTask.of(FILES, ENDPOINT, BATCH)
    assert GroupTask.model_validate(task.model_dump(mode="json")) == task
    assert task.size == sum(file.size for file in FILES)


def test_the_same_files_in_the_same_batch_are_the_same_task() -> None:
    first, again = (GroupTask.of(FILES, ENDPOINT, BATCH) for _ in range(2))
    assert first.id == again.id
    assert GroupTask.of(FILES[:2], ENDPOINT, BATCH).id != first.id
    assert GroupTask.of(FILES, ENDPOINT, UUID(int=8)).id != first.id
    elsewhere = [replace(file, venue="another") for file in FILES]
    assert GroupTask.of(elsewhere, ENDPOINT, BATCH).id != first.id


def test_a_request_names_the_task_and_has_the_same_size_whatever_the_task_holds() -> None:
    task = GroupTask.of(FILES, ENDPOINT, BATCH)
    event = Event.from_message(requested(task.id, BATCH, traceparent=TRACEPARENT).to_message())
    assert event.data == {"id": str(task.id), "batch_id": str(BATCH)}
    assert event.partition_key == str(task.id)
    assert event.traceparent == TRACEPARENT


def test_what_was_collected_of_a_task_is_told_file_by_file_in_one_event() -> None:
    task = GroupTask.of(FILES, ENDPOINT, BATCH)
    event = task.collected([ledger_entry(file) for file in FILES[:2]], TRACEPARENT)
    assert (event.type, event.subject) == ("marketlake.files.collected", "binance/spot/klines")
    assert (event.data["task_id"], event.data["batch_id"]) == (str(task.id), str(BATCH))
    assert [told["key"] for told in event.data["files"]] == [file.key for file in FILES[:2]]
    assert event.data["files"][0] == {
        "key": FILES[0].key, "version": 1, "sha256": "0" * 64, "size": FILES[0].size, "rows": 1440,
        "quarantined": 0, "landing_key": f"binance/{FILES[0].key}", "landing_version_id": "v1",
    }  # fmt: skip
    assert event.partition_key == str(BATCH)
    assert Event.from_message(event.to_message()) == event


def test_what_failed_of_a_task_is_told_with_what_requests_just_that_again() -> None:
    task = GroupTask.of(FILES, ENDPOINT, BATCH)
    event = task.failed([FileFailure(FILES[1].key, "checksum-mismatch", "what to do", 3)], None)
    assert event.type == "marketlake.files.failed"
    assert event.data["files"] == [
        {"key": FILES[1].key, "code": "checksum-mismatch", "message": "what to do", "attempts": 3}
    ]
    again = GroupTask.model_validate(event.data["task"])
    assert again.files == (FILES[1],)
    assert (again.batch_id, again.endpoint) == (BATCH, ENDPOINT)


def test_each_event_has_an_id_of_its_own() -> None:
    task = GroupTask.of(FILES, ENDPOINT, BATCH)
    events = [task.collected([], None), task.collected([], None), requested(task.id, BATCH, traceparent=None)]
    assert len({event.id for event in events}) == 3


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
