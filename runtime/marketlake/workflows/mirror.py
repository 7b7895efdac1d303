"""Show batches in the workflow engine, and take over there that one is to be cancelled.

A projection: PostgreSQL is the truth, and collecting goes on while the engine is down. Each batch is shown as a run of
the flow `collection`, whose states are named like the batch's. Killed in between, the mirror shows a state again.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial

from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import BatchState, Unshown
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres
from marketlake.infrastructure.postgres.locks import LockHeldError, hold
from marketlake.retry import Backoff, FailedAttempt, RetryStoppedError, retry
from marketlake.settings import WorkflowEngine
from marketlake.workflows.engine import (
    ShownState,
    WorkflowClient,
    WorkflowEngineRefusedError,
    WorkflowEngineUnavailableError,
)
from marketlake.workflows.summary import markdown

log = logging.getLogger(__name__)

FLOW = "collection"
"""The flow whose runs show batches."""
_LOOK_EVERY_S = 1.0
_SHOWN_AT_ONCE = 100
_BACKOFF = Backoff(first_wait_s=2.0, longest_wait_s=30.0)
_OUTAGES = (DatabaseUnavailableError, WorkflowEngineUnavailableError, WorkflowEngineRefusedError)
_TYPES = {
    BatchState.DONE: "COMPLETED",
    BatchState.FAILED: "FAILED",
    BatchState.CANCELLED: "CANCELLED",
}


class Mirror:
    """Shows batches; any number of processes may run one, one at a time does.

    Args:
        postgres: where batches are.
        engine: where they are shown.
        connect: makes a client of the engine.
    """

    def __init__(
        self,
        postgres: Postgres,
        engine: WorkflowEngine,
        *,
        connect: Callable[[WorkflowEngine], WorkflowClient] = WorkflowClient,
    ) -> None:
        self._postgres = postgres
        self._engine = engine
        self._connect = connect

    def run(self, stop: threading.Event) -> None:
        """Show whatever changes until `stop` is set; outages are waited out."""
        try:
            retry(partial(self._lead, stop), backoff=_BACKOFF, on=_stays, wait=stop.wait, tell=self._tell)
        except (RetryStoppedError, LockHeldError):
            return

    def _lead(self, stop: threading.Event) -> None:
        with (
            hold(self._postgres, "workflow mirror", wait=stop.wait) as session,
            self._connect(self._engine) as client,
        ):
            session.execute(f"listen {batches.WAKE}")
            while not stop.is_set():
                self.show_changes(client)
                self.take_over_cancellations(client)
                next(session.notifies(timeout=_LOOK_EVERY_S, stop_after=1), None)

    def show_changes(self, client: WorkflowClient) -> None:
        """Show all batches that have entered a state since it was shown.

        Raises:
            WorkflowEngineUnavailableError, WorkflowEngineRefusedError: some are still to be shown.
            DatabaseUnavailableError: likewise.
        """
        while True:
            with self._postgres.transaction() as connection:
                changed = batches.unshown(connection, most=_SHOWN_AT_ONCE)
            for batch in changed:
                self._show(client, batch)
            if len(changed) < _SHOWN_AT_ONCE:
                return

    def take_over_cancellations(self, client: WorkflowClient) -> None:
        """Cancel the batches whose flow runs somebody cancels in the engine."""
        with self._postgres.transaction() as connection:
            shown = batches.open_flow_runs(connection)
        if not shown:
            return
        for flow_run in client.cancelled_among(list(shown)):
            with self._postgres.transaction() as connection:
                batches.cancel(connection, shown[flow_run])

    def _show(self, client: WorkflowClient, batch: Unshown) -> None:
        state = ShownState(
            type=_TYPES.get(batch.state, "RUNNING"), name=batch.state.value.title(), message=batch.error or ""
        )
        flow_run = batch.flow_run or client.create(
            FLOW,
            parameters={"selection": batch.selection},
            key=str(batch.id),
            tags=[
                value
                for name in ("venue", "market", "data_type", "interval")
                if (value := batch.selection.get(name))
            ],
            state=state,
        )
        client.show(flow_run, state)
        if batch.state.ended:
            with self._postgres.transaction() as connection:
                progress = batches.progress(connection, batch.id)
                failures = batches.failures(connection, batch.id)
            if progress is not None:
                client.attach(flow_run, "collection-summary", markdown(batch.id, progress, failures))
        with self._postgres.transaction() as connection:
            batches.shown(connection, batch, flow_run)

    def _tell(self, failed: FailedAttempt) -> None:
        log.warning(
            "batches are not shown for now: %s; trying again in %.0f s",
            failed.error,
            failed.wait_s,
            exc_info=None if isinstance(failed.error, _OUTAGES) else failed.error,
        )


def _stays(error: Exception) -> bool:
    """Whatever goes wrong, collecting must not stop for it: a mirror stays, but for the end of its process."""
    return not isinstance(error, LockHeldError)
