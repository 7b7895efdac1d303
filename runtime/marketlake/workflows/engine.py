"""A client of Prefect's REST API for showing runs; importing Prefect itself takes seconds.

Source: the OpenAPI document of Prefect 3.8 (``/flows``, ``/flow_runs``, ``/artifacts``).
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import httpx

from marketlake.errors import MarketlakeError
from marketlake.settings import WorkflowEngine

TIMEOUT_S = 10.0


class WorkflowEngineUnavailableError(MarketlakeError):
    """The workflow engine does not answer; the same request may succeed later."""

    code = "workflow-engine-unavailable"
    transient = True


class WorkflowEngineRefusedError(MarketlakeError):
    """The workflow engine answers, and refuses: repeating it cannot help."""

    code = "workflow-engine-refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownState:
    """A state of a flow run."""

    type: str
    """RUNNING, COMPLETED, FAILED or CANCELLED."""
    name: str
    """As a person sees it."""
    message: str


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

    def create(
        self, flow: str, *, parameters: dict[str, Any], key: str, tags: list[str], state: ShownState
    ) -> str:
        """Create a run of a flow that the engine itself does not carry out; the same key again is the same run.

        Returns:
            Its id.

        Raises:
            WorkflowEngineUnavailableError: the server does not answer.
            WorkflowEngineRefusedError: it refuses.
        """
        found = self._answer("POST", "/flows/", {"name": flow})
        run = self._answer(
            "POST",
            "/flow_runs/",
            {
                "flow_id": found["id"],
                "name": f"{flow} {key[:8]}",
                "parameters": parameters,
                "idempotency_key": key,
                "tags": tags,
                "state": asdict(state),
            },
        )
        return str(run["id"])

    def show(self, run_id: str, state: ShownState) -> None:
        """Let a run be in a state, whatever its former one was; a run that was deleted is passed over.

        Raises:
            WorkflowEngineUnavailableError: the server does not answer.
            WorkflowEngineRefusedError: it refuses.
        """
        body = {"state": asdict(state), "force": True}
        self._answer("POST", f"/flow_runs/{run_id}/set_state", body, may_be_gone=True)

    def attach(self, run_id: str, key: str, text: str) -> None:
        """Put a text in Markdown on a run's page.

        Raises:
            WorkflowEngineUnavailableError: the server does not answer.
            WorkflowEngineRefusedError: it refuses.
        """
        body = {"key": key, "type": "markdown", "data": text, "flow_run_id": run_id}
        self._answer("POST", "/artifacts/", body)

    def cancelled_among(self, run_ids: list[str]) -> list[str]:
        """Return those of these runs that somebody cancels, or has cancelled, in the engine.

        Raises:
            WorkflowEngineUnavailableError: the server does not answer.
            WorkflowEngineRefusedError: it refuses.
        """
        chosen = {"id": {"any_": run_ids}, "state": {"type": {"any_": ["CANCELLING", "CANCELLED"]}}}
        runs = self._answer("POST", "/flow_runs/filter", {"flow_runs": chosen})
        return [str(run["id"]) for run in runs]

    def _answer(self, method: str, path: str, body: dict[str, Any], *, may_be_gone: bool = False) -> Any:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise self._no_answer(str(error) or type(error).__name__) from error
        if response.status_code >= 500:
            raise self._no_answer(f"HTTP {response.status_code}")
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise WorkflowEngineRefusedError(
                f"the workflow engine at {self._engine.api_url} refuses the credentials of this environment: "
                "`make up` renews them."
            )
        if response.status_code == httpx.codes.NOT_FOUND and may_be_gone:
            return None
        if response.is_error:
            raise WorkflowEngineRefusedError(
                f"the workflow engine refuses to show a collection: HTTP {response.status_code}: "
                f"{response.text[:500]}"
            )
        return response.json()

    def _no_answer(self, reason: str) -> WorkflowEngineUnavailableError:
        return WorkflowEngineUnavailableError(
            f"the workflow engine at {self._engine.api_url} does not answer: {reason}. "
            "Look at `marketlake status`; `make up` starts what was stopped."
        )
