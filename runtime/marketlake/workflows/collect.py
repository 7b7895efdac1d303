"""The flow `collect`: request a collection, for a schedule or a person at Prefect's page.

It does no more: workers carry the collection on, and the mirror shows it as a run of the flow `collection`.
"""

from typing import Any
from uuid import UUID, uuid4

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from marketlake.archive.collection import batches
from marketlake.archive.collection.plan import selected_datasets
from marketlake.archive.collection.tasks import selection_from_json
from marketlake.domain.venue import load_venue
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.postgres import Postgres, migrate
from marketlake.settings import Settings, VenueEndpoint


@flow(
    name="collect",
    description="Request a collection of archive files of a venue: discover, copy with proof, refine.",
    validate_parameters=False,
    persist_result=False,
)
def collect(selection: dict[str, Any], venue_endpoint: dict[str, str] | None = None) -> State[Any]:
    """Request a collection of the selected files. The same run again requests nothing new.

    Args:
        selection: fields of a :class:`~marketlake.domain.archive.Selection` as JSON values; `venue` at least.
        venue_endpoint: `endpoint` and `bucket` to read instead of the environment's.

    Raises:
        SelectionError: nothing that can be collected is selected.
    """
    settings = Settings.load()
    telemetry.configure("collect-flow", settings)
    try:
        chosen = selection_from_json(selection)
        selected_datasets(load_venue(chosen.venue), chosen)  # refuse what cannot be collected here, not later
        endpoint = VenueEndpoint.model_validate(venue_endpoint) if venue_endpoint else None
        batch_id = UUID(str(flow_run.id)) if flow_run.id else uuid4()
        with (
            telemetry.span("request collection", batch=str(batch_id)),
            Postgres(settings.database, application="collect flow") as postgres,
        ):
            migrate(postgres)
            with postgres.transaction() as connection:
                traceparent = telemetry.current_traceparent()
                batches.request(connection, batch_id, chosen, endpoint, traceparent=traceparent)
        return Completed(message=f"requested as batch {batch_id}")
    finally:
        telemetry.flush()
