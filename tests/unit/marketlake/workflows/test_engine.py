import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from marketlake.settings import WorkflowEngine
from marketlake.workflows import engine as workflow_engine
from marketlake.workflows.engine import (
    WorkflowClient,
    WorkflowEngineRefusedError,
    WorkflowEngineUnavailableError,
)

RUN = {"id": "r1", "state_type": "SCHEDULED", "state": {"message": None}}


class Engine:
    """Answers as Prefect's REST API does; records what it is asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[tuple[int, Any]]] = {
            ("GET", "/api/deployments/name/collect/collect"): [(200, {"id": "d1"})],
            ("POST", "/api/deployments/d1/create_flow_run"): [(201, RUN)],
            ("GET", "/api/flow_runs/r1"): [(200, RUN | {"state_type": "RUNNING"})],
            ("POST", "/api/flow_runs/r1/set_state"): [(200, {})],
        }
        self.asked: list[tuple[str, str, Any, str | None]] = []

    @contextmanager
    def serving(self) -> Iterator[WorkflowEngine]:
        engine = self

        class Answer(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                engine.asked.append((self.command, self.path, body, self.headers["authorization"]))
                queue = engine.answers.get((self.command, self.path), [(404, {})])
                code, answer = queue.pop(0) if len(queue) > 1 else queue[0]
                payload = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = answer  # noqa: N815 - the base class names them so

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield WorkflowEngine(api_url=f"{url}/api", ui_url=f"{url}/", auth_string="user:pass")
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_engine, "START_TIMEOUT_S", 0.6)


def start(client: WorkflowClient) -> workflow_engine.FlowRun:
    return client.start({"selection": {}}, key="0123456789", tags=["binance"], labels={"l": "1"})


def test_a_run_is_started_once_per_key_with_the_credentials() -> None:
    engine = Engine()
    with engine.serving() as settings, WorkflowClient(settings) as client:
        run = start(client)
        assert (run.id, run.waiting, run.ended) == ("r1", True, False)
        assert client.page("r1") == f"{settings.ui_url}runs/flow-run/r1"
    _, _, body, authorization = engine.asked[1]
    assert body["idempotency_key"] == "0123456789"
    assert (body["name"], body["tags"], body["parameters"]) == (
        "collect 01234567",
        ["binance"],
        {"selection": {}},
    )
    assert authorization == "Basic " + base64.b64encode(b"user:pass").decode()


def test_a_server_that_starts_up_is_waited_for() -> None:
    engine = Engine()
    engine.answers["GET", "/api/deployments/name/collect/collect"].insert(0, (503, {}))
    with engine.serving() as settings, WorkflowClient(settings) as client:
        assert start(client).id == "r1"


@pytest.mark.parametrize(
    ("place", "answer", "message", "error"),
    [
        (
            ("GET", "/api/deployments/name/collect/collect"),
            (404, {}),
            "has no deployment 'collect/collect'",
            WorkflowEngineRefusedError,
        ),
        (
            ("GET", "/api/deployments/name/collect/collect"),
            (401, {}),
            "refuses the credentials",
            WorkflowEngineRefusedError,
        ),
        (
            ("GET", "/api/deployments/name/collect/collect"),
            (500, {}),
            "does not answer: HTTP 500",
            WorkflowEngineUnavailableError,
        ),
        (
            ("POST", "/api/deployments/d1/create_flow_run"),
            (422, {"detail": "bad"}),
            "HTTP 422: .*bad",
            WorkflowEngineRefusedError,
        ),
    ],
)
def test_a_refusal_is_told_with_what_to_do(
    place: tuple[str, str], answer: tuple[int, Any], message: str, error: type[Exception]
) -> None:
    engine = Engine()
    engine.answers[place] = [answer]
    with (
        engine.serving() as settings,
        WorkflowClient(settings) as client,
        pytest.raises(error, match=message) as caught,
    ):
        start(client)
    assert "`make up`" in str(caught.value)


def test_a_server_that_is_away_is_told() -> None:
    settings = WorkflowEngine(api_url="http://127.0.0.1:1/api", ui_url="http://127.0.0.1:1")
    with WorkflowClient(settings) as client:
        with pytest.raises(WorkflowEngineUnavailableError, match=r"does not answer: .*[Rr]efused"):
            start(client)
        assert client.look("r1") is None
        assert not client.cancel("r1")
        assert not client.has_worker()


@pytest.mark.parametrize(
    ("workers", "there"), [([], False), (["OFFLINE"], False), (["OFFLINE", "ONLINE"], True)]
)
def test_a_pool_has_a_worker_if_one_is_online(workers: list[str], there: bool) -> None:
    engine = Engine()
    answer = [{"name": "w", "status": status} for status in workers]
    engine.answers["POST", "/api/work_pools/collection/workers/filter"] = [(200, answer)]
    with engine.serving() as settings, WorkflowClient(settings) as client:
        assert client.has_worker() is there


def test_a_run_can_be_looked_at_and_cancelled() -> None:
    engine = Engine()
    with engine.serving() as settings, WorkflowClient(settings) as client:
        run = client.look("r1")
        assert run is not None
        assert (run.state_type, run.waiting) == ("RUNNING", False)
        assert client.look("unknown") is None
        assert client.cancel("r1")
    assert engine.asked[-1][2]["state"]["type"] == "CANCELLED"
