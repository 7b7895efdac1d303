"""The event that requests a task, which the database holds; the event bus carries its id alone."""

from uuid import UUID

from marketlake.infrastructure.bus.envelope import EnvelopeError, Event

SOURCE = "/marketlake/workers"
TASK_REQUESTED = "marketlake.task.requested"


def requested(task_id: UUID, batch_id: UUID, *, traceparent: str | None) -> Event:
    """Return the event that requests a task of a batch."""
    return Event(
        source=SOURCE,
        type=TASK_REQUESTED,
        subject=str(task_id),
        partition_key=str(task_id),
        traceparent=traceparent,
        data={"id": str(task_id), "batch_id": str(batch_id)},
    )


def task_of(event: Event) -> UUID:
    """Return the id of the task that an event requests.

    Raises:
        EnvelopeError: it requests none.
    """
    if event.type != TASK_REQUESTED:
        raise EnvelopeError(f"event {event.id} is a {event.type}; workers take {TASK_REQUESTED} only")
    try:
        return UUID(str(event.data["id"]))
    except (KeyError, ValueError) as error:
        raise EnvelopeError(f"event {event.id} names no task: {error}") from error
