"""A client of Prefect's REST API for starting and following a run; importing Prefect itself takes seconds.

Source: the OpenAPI document of Prefect 3.8 (``/deployments``, ``/flow_runs``).
"""

from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx

from marketlake.errors import MarketlakeError
from marketlake.retry import Backoff, retry
from marketlake.settings import WorkflowEngine

TIMEOUT_S = 10.0
START_TIMEOUT_S = 15.0
"""How long a server that does not answer is asked again before a run is started."""


class WorkflowEngineUnavailableError(MarketlakeError):
    """The workflow engine does not answer; the same request may succeed later."""

    code = "workflow-engine-unavailable"
    transient = True


class WorkflowEngineRefusedError(MarketlakeError):
    """The workflow engine answers, and refuses: repeating it cannot help."""

    code = "workflow-engine-refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """A run as the workflow engine sees it."""

    id: str
    state_type: str
    """SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, CANCELLING, CRASHED or PAUSED."""
    message: str | None

    @property
    def waiting(self) -> bool:
        """Whether no worker has begun it."""
        return self.state_type in {"SCHEDULED", "PENDING"}

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state_type in {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


class WorkflowClient:
    """A client of the workflow engine."""

    def __init__(self, engine: WorkflowEngine) -> None:
        self._engine = engine
        user, _, password = (engine.auth_string.get_secret_value() if engine.auth_string else "").partition(
            ":"
        )
        self._http = httpx.Client(
            base_url=engine.api_url,
            timeout=TIMEOUT_S,
            auth=(user, password) if engine.auth_string else None,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def start(
        self, parameters: dict[str, Any], *, key: str, tags: list[str], labels: dict[str, str]
    ) -> FlowRun:
        """Start a run of the collection's deployment; the same key again is the same run.

        Raises:
            WorkflowEngineUnavailableError: the server does not answer.
            WorkflowEngineRefusedError: it refuses, or knows no such deployment.
        """
        flow, _, name = self._engine.collect_deployment.partition("/")
        found = self._patiently("GET", f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
        if found.status_code == httpx.codes.NOT_FOUND:
            raise WorkflowEngineRefusedError(
                f"the workflow engine at {self._engine.api_url} has no deployment "
                f"{self._engine.collect_deployment!r}: `make up` creates it."
            )
        deployment = self._accepted(found)
        run = self._patiently(
            "POST",
            f"/deployments/{deployment['id']}/create_flow_run",
            {
                "parameters": parameters,
                "idempotency_key": key,
                "tags": tags,
                "labels": labels,
                "name": f"collect {key[:8]}",
                "state": {"type": "SCHEDULED", "message": "asked for by marketlake collect"},
            },
        )
        return _flow_run(self._accepted(run))

    def look(self, run_id: str) -> FlowRun | None:
        """Return the run as it is now; None if the server does not answer now."""
        try:
            return _flow_run(self._http.get(f"/flow_runs/{run_id}").raise_for_status().json())
        except (httpx.HTTPError, ValueError, KeyError):
            return None

    def has_worker(self) -> bool:
        """Return whether a worker of the work pool is online."""
        path = f"/work_pools/{quote(self._engine.work_pool, safe='')}/workers/filter"
        try:
            workers = self._http.post(path, json={}).raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return False
        return any(worker.get("status") == "ONLINE" for worker in workers)

    def cancel(self, run_id: str) -> bool:
        """Cancel a run that has not begun; return whether the server accepted it."""
        return self._put(run_id, {"type": "CANCELLED", "message": "cancelled by marketlake collect"})

    def mark_crashed(self, run_id: str) -> bool:
        """Mark a run as crashed whose process was killed with its worker; return whether the server accepted it."""
        return self._put(
            run_id, {"type": "CRASHED", "message": "killed: it gave no sign of life"}, force=True
        )

    def page(self, run_id: str) -> str:
        """Return the URL of the run's page."""
        return f"{self._engine.ui_url.rstrip('/')}/runs/flow-run/{run_id}"

    def _put(self, run_id: str, state: dict[str, str], *, force: bool = False) -> bool:
        body = {"state": state, "force": force}
        try:
            self._http.post(f"/flow_runs/{run_id}/set_state", json=body).raise_for_status()
        except httpx.HTTPError:
            return False
        return True

    def _patiently(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        def request() -> httpx.Response:
            try:
                response = self._http.request(method, path, json=body)
            except httpx.HTTPError as error:
                raise self._no_answer(str(error) or type(error).__name__) from error
            if response.status_code >= 500:
                raise self._no_answer(f"HTTP {response.status_code}")
            return response

        return retry(
            request,
            backoff=Backoff(timeout_s=START_TIMEOUT_S, longest_wait_s=2.0),
            on=WorkflowEngineUnavailableError,
            tell=lambda _: None,
        )

    def _no_answer(self, reason: str) -> WorkflowEngineUnavailableError:
        return WorkflowEngineUnavailableError(
            f"the workflow engine at {self._engine.api_url} does not answer: {reason}. "
            "Look at `marketlake status`; `make up` starts what was stopped."
        )

    def _accepted(self, response: httpx.Response) -> dict[str, Any]:
        if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise WorkflowEngineRefusedError(
                f"the workflow engine at {self._engine.api_url} refuses the credentials of this environment: "
                "`make up` rewrites the platform file."
            )
        if response.is_error:
            raise WorkflowEngineRefusedError(
                f"the workflow engine refuses to start the collection: HTTP {response.status_code}: "
                f"{response.text[:500]}. `make up` brings its deployment up to date."
            )
        answer: dict[str, Any] = response.json()
        return answer


def _flow_run(answer: dict[str, Any]) -> FlowRun:
    state = answer.get("state") or {}
    return FlowRun(
        id=answer["id"], state_type=answer.get("state_type") or "PENDING", message=state.get("message")
    )
