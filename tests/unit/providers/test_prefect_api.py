import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from components.providers import flow_deployment, waiting
from components.providers.base import ResourceError, UnreachableError
from components.providers.connections import WorkflowEngineConnection
from components.providers.flow_deployment import FlowDeploymentInputs, FlowDeploymentProvider
from components.providers.prefect_api import PrefectApi
from components.providers.work_pool import WorkPoolInputs, WorkPoolProvider


class Server:
    """A web server that gives its answers in order and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.requests: list[tuple[str, str, str | None]] = []
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.requests.append((self.command, self.path, self.headers.get("Authorization")))
                outer.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                status, body = outer.answers.pop(0)
                text = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the base class calls these names

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/api"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def api(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectApi]:
    monkeypatch.setattr(waiting.time, "sleep", lambda _: None)
    connection = WorkflowEngineConnection(api_url=f"{server.url}/", auth_string="user:pass:word")
    with PrefectApi(connection, 5) as api:
        yield api


def test_it_authenticates_and_waits_for_a_server_that_starts(server: Server, api: PrefectApi) -> None:
    server.answers += [(503, ""), (502, ""), (500, "no database yet"), (200, {"id": 1})]
    assert api.get("/work_pools/a") == {"id": 1}
    identity = "Basic " + base64.b64encode(b"user:pass:word").decode()
    assert server.requests == [("GET", "/api/work_pools/a", identity)] * 4


def test_nobody_is_named_to_a_server_without_authentication(server: Server) -> None:
    server.answers.append((200, {}))
    with PrefectApi(WorkflowEngineConnection(api_url=server.url), 5) as api:
        api.get("/x")
    assert server.requests[0][2] is None


def test_what_is_absent_or_there_already_is_no_error(server: Server, api: PrefectApi) -> None:
    server.answers += [(404, {}), (409, {}), (404, {}), (204, "")]
    assert api.get("/x") is None
    assert api.post("/x", {}) is None
    api.delete("/x")
    api.patch("/x", {})
    assert [method for method, *_ in server.requests] == ["GET", "POST", "DELETE", "PATCH"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((422, {"detail": "bad name"}), "GET /api/x with HTTP 422: bad name$"),
        ((422, {"detail": [{"loc": 1}]}), r'HTTP 422: \{"detail": \[\{"loc": 1\}\]\}$'),
        ((418, "<html>oops"), "HTTP 418: <html>oops"),
        ((400, [1]), r"HTTP 400: \[1\]"),
        ((401, ""), r"refuses GET /api/x \(HTTP 401\).*pulumi up --refresh"),
        ((200, [1]), "answers with list where an object belongs"),
    ],
)
def test_a_refusal_is_told_in_its_own_words(
    server: Server, api: PrefectApi, answer: tuple[int, Any], message: str
) -> None:
    server.answers.append(answer)
    with pytest.raises(ResourceError, match=message) as caught:
        api.get("/x")
    assert "pass:word" not in str(caught.value)


def test_a_server_that_stays_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting.time, "sleep", lambda _: None)
    connection = WorkflowEngineConnection(api_url="http://127.0.0.1:1/api")
    with (
        PrefectApi(connection, 0.05) as api,
        pytest.raises(UnreachableError, match=r"workflow engine at http://127\.0\.0\.1:1/api did not answer"),
    ):
        api.get("/x")


def pool(url: str, **more: Any) -> WorkPoolInputs:
    return WorkPoolInputs.model_validate(
        {"version": "2", "connection": {"api_url": url}, "work_pool": "runs", **more}
    )


def test_a_work_pool_of_another_kind_is_replaced(server: Server) -> None:
    server.answers += [(200, {"type": "process"}), (204, ""), (201, {"type": "kubernetes"})]
    template = {"job": {"ttl": 60.0, "share": 0.5, "ports": [{"port": 80.0}]}}
    declared = pool(server.url, worker_type="kubernetes", base_job_template=template)
    WorkPoolProvider().create(declared.model_dump(mode="json"))
    assert [request[:2] for request in server.requests] == [
        ("GET", "/api/work_pools/runs"),
        ("DELETE", "/api/work_pools/runs"),
        ("POST", "/api/work_pools/"),
    ]
    sent = json.loads(server.bodies[-1])
    assert sent == {
        "name": "runs",
        "type": "kubernetes",
        "description": "",
        "concurrency_limit": None,
        "is_paused": False,
        "base_job_template": {"job": {"ttl": 60, "share": 0.5, "ports": [{"port": 80}]}},
    }
    assert b"60.0" not in server.bodies[-1], "Kubernetes refuses it"


def test_a_paused_work_pool_goes_on_and_keeps_its_workers_template(server: Server) -> None:
    server.answers += [(200, {"type": "process"}), (204, "")]
    WorkPoolProvider().apply(pool(server.url, concurrency_limit=2))
    assert server.requests[-1][:2] == ("PATCH", "/api/work_pools/runs")
    assert json.loads(server.bodies[-1]) == {"description": "", "concurrency_limit": 2, "is_paused": False}


def test_a_work_pool_is_seen_as_it_is(server: Server) -> None:
    live = {"type": "process", "description": None, "concurrency_limit": 3, "base_job_template": {"a": 1}}
    server.answers += [(404, {}), (200, live), (200, live), (204, "")]
    provider, declared = WorkPoolProvider(), pool(server.url)
    assert provider.observe(declared) is None
    seen = {"worker_type": "process", "description": "", "concurrency_limit": 3}
    assert provider.observe(declared) == seen
    assert provider.observe(pool(server.url, base_job_template={})) == {**seen, "base_job_template": {"a": 1}}
    provider.remove(declared)
    assert server.requests[-1][:2] == ("DELETE", "/api/work_pools/runs")


def _declared(url: str) -> FlowDeploymentInputs:
    return FlowDeploymentInputs.model_validate(
        {
            "version": "1",
            "connection": {"api_url": url},
            "flow": "collect it",
            "deployment": "a/b",
            "entrypoint": "package.module.flow",
            "work_pool": "pool",
        }
    )


def test_names_with_special_characters_are_escaped(server: Server) -> None:
    server.answers.append((404, {}))
    assert FlowDeploymentProvider().observe(_declared(server.url)) is None
    assert server.requests[0][1] == "/api/deployments/name/collect%20it/a%2Fb"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([(409, {})], "neither finds nor creates the flow 'collect it'"),
        ([(200, {"id": "f"}), (409, {})], "do not fit the work pool 'pool', or its parameters their schema"),
    ],
)
def test_a_deployment_that_prefect_refuses_is_told(
    server: Server, answers: list[tuple[int, Any]], message: str
) -> None:
    server.answers += answers
    with pytest.raises(ResourceError, match=message):
        FlowDeploymentProvider().apply(_declared(server.url))


@pytest.mark.parametrize("entrypoint", ["module", "path/to/file.py:flow", "a..b", ""])
def test_an_entrypoint_is_a_path_of_modules(entrypoint: str) -> None:
    declared = _declared("http://x/api").model_dump(mode="json") | {"entrypoint": entrypoint}
    failures = flow_deployment.FlowDeploymentProvider().check({}, declared).failures
    assert [failure.property for failure in failures] == ["entrypoint"]
