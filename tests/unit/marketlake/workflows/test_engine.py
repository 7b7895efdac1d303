import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from marketlake.settings import WorkflowEngine
from marketlake.workflows.engine import (
    ShownState,
    WorkflowClient,
    WorkflowEngineRefusedError,
    WorkflowEngineUnavailableError,
)

RUNNING = ShownState(type="RUNNING", name="Collecting", message="")


class Engine:
    """Answers as Prefect's REST API does; records what it is asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[tuple[int, Any]]] = {
            ("POST", "/api/flows/"): [(200, {"id": "f1"})],
            ("POST", "/api/flow_runs/"): [(201, {"id": "r1"})],
            ("POST", "/api/flow_runs/filter"): [(200, [{"id": "r2"}])],
            ("POST", "/api/flow_runs/r1/set_state"): [(201, {"status": "ACCEPT"})],
            ("POST", "/api/artifacts/"): [(201, {"id": "a1"})],
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


def create(client: WorkflowClient) -> str:
    return client.create(
        "collection", parameters={"selection": {}}, key="0123456789", tags=["binance"], state=RUNNING
    )


def test_a_run_is_created_once_per_key_with_the_credentials() -> None:
    engine = Engine()
    with engine.serving() as settings, WorkflowClient(settings) as client:
        assert create(client) == "r1"
        assert settings.page("r1") == f"{settings.ui_url}runs/flow-run/r1"
    _, _, body, authorization = engine.asked[1]
    assert body == {
        "flow_id": "f1",
        "name": "collection 01234567",
        "parameters": {"selection": {}},
        "idempotency_key": "0123456789",
        "tags": ["binance"],
        "state": {"type": "RUNNING", "name": "Collecting", "message": ""},
    }
    assert authorization == "Basic " + base64.b64encode(b"user:pass").decode()


def test_a_run_is_shown_in_a_state_whatever_the_former_was() -> None:
    engine = Engine()
    with engine.serving() as settings, WorkflowClient(settings) as client:
        client.show("r1", RUNNING)
        client.show("deleted by somebody", RUNNING)
        client.attach("r1", "summary", "| a |")
    assert engine.asked[0][2] == {
        "state": {"type": "RUNNING", "name": "Collecting", "message": ""},
        "force": True,
    }
    assert engine.asked[2][2] == {"key": "summary", "type": "markdown", "data": "| a |", "flow_run_id": "r1"}


def test_runs_that_somebody_cancels_are_found() -> None:
    engine = Engine()
    with engine.serving() as settings, WorkflowClient(settings) as client:
        assert client.cancelled_among(["r1", "r2"]) == ["r2"]
    assert engine.asked[0][2]["flow_runs"]["id"] == {"any_": ["r1", "r2"]}


@pytest.mark.parametrize(
    ("answer", "message", "error"),
    [
        ((401, {}), "refuses the credentials .*`make up`", WorkflowEngineRefusedError),
        ((422, {"detail": "bad"}), "HTTP 422: .*bad", WorkflowEngineRefusedError),
        ((404, {}), "HTTP 404", WorkflowEngineRefusedError),
        ((500, {}), "does not answer: HTTP 500.*`make up`", WorkflowEngineUnavailableError),
    ],
)
def test_a_refusal_is_told(answer: tuple[int, Any], message: str, error: type[Exception]) -> None:
    engine = Engine()
    engine.answers["POST", "/api/flows/"] = [answer]
    with (
        engine.serving() as settings,
        WorkflowClient(settings) as client,
        pytest.raises(error, match=message),
    ):
        create(client)


def test_a_server_that_is_away_is_told() -> None:
    settings = WorkflowEngine(api_url="http://127.0.0.1:1/api", ui_url="http://127.0.0.1:1")
    with (
        WorkflowClient(settings) as client,
        pytest.raises(WorkflowEngineUnavailableError, match=r"does not answer: .*[Rr]efused"),
    ):
        create(client)
