"""Namespaces against an API server that keeps them in memory."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from components.providers.base import ResourceError, UnreachableError
from components.providers.cluster_namespace import ClusterNamespaceInputs, ClusterNamespaceProvider
from components.supervision.layout import KEEP_DATA_VARIABLE

KINDS = [
    {
        "name": "namespaces",
        "singularName": "namespace",
        "namespaced": False,
        "kind": "Namespace",
        "verbs": ["get"],
    }
]


class ApiServer(ThreadingHTTPServer):
    """The paths of the Kubernetes API that namespaces take."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.namespaces: dict[str, dict[str, Any]] = {}
        self.forbids = False


class Requests(BaseHTTPRequestHandler):
    server: ApiServer

    def log_message(self, *_: object) -> None: ...

    def answer(self, code: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle_namespace(self) -> None:
        name = self.path.split("?")[0].rpartition("/")[2]
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        known = self.server.namespaces
        if self.path.startswith("/version"):
            self.answer(200, {"major": "1", "minor": "30", "gitVersion": "v1.30.0"})
        elif self.server.forbids:
            self.answer(403, {"kind": "Status", "message": "namespaces is forbidden", "code": 403})
        elif self.path.startswith("/api/v1/namespaces"):
            if self.command == "POST":
                known[body["metadata"]["name"]] = body
                self.answer(201, body)
            elif name not in known:
                self.answer(404, {"kind": "Status", "message": f'namespaces "{name}" not found', "code": 404})
            elif self.command == "PATCH":
                known[name]["metadata"].setdefault("labels", {}).update(body["metadata"]["labels"])
                self.answer(200, known[name])
            elif self.command == "DELETE":
                self.answer(200, known.pop(name))
            else:
                self.answer(200, known[name])
        else:
            self.answer(
                200, {"kind": "APIResourceList", "groupVersion": "v1", "resources": KINDS, "groups": []}
            )

    do_GET = do_POST = do_PATCH = do_DELETE = handle_namespace  # noqa: N815 - the base class looks for these


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def declared(server: ApiServer, tmp_path: Path) -> ClusterNamespaceInputs:
    config = tmp_path / "kubeconfig"
    place = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
    users = [{"name": "me", "user": {"token": "t"}}]
    document = {"clusters": [place], "contexts": [context], "current-context": "here", "users": users}
    config.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **document}))
    return ClusterNamespaceInputs(version="1", namespace="lake", stack="blue", kubeconfig=str(config))


def test_a_namespace_is_made_seen_and_removed(server: ApiServer, declared: ClusterNamespaceInputs) -> None:
    provider = ClusterNamespaceProvider()
    assert provider.observe(declared) is None
    provider.apply(declared)
    labels = server.namespaces["lake"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/instance"] == "blue"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert provider.observe(declared) == {}
    provider.remove(declared)
    assert server.namespaces == {}
    provider.remove(declared)


def test_our_own_namespace_is_adopted_and_mended(server: ApiServer, declared: ClusterNamespaceInputs) -> None:
    server.namespaces["lake"] = {
        "metadata": {"name": "lake", "labels": {"app.kubernetes.io/instance": "blue"}}
    }
    provider = ClusterNamespaceProvider()
    assert provider.observe(declared) is None, "it enforces nothing"
    provider.apply(declared)
    assert provider.observe(declared) == {}


@pytest.mark.parametrize(
    ("labels", "whose"),
    [({}, "is not of this platform"), ({"app.kubernetes.io/instance": "red"}, "belongs to the stack 'red'")],
)
def test_a_foreign_namespace_is_left_alone(
    server: ApiServer, declared: ClusterNamespaceInputs, labels: dict[str, str], whose: str
) -> None:
    server.namespaces["lake"] = {"metadata": {"name": "lake", "labels": labels}}
    with pytest.raises(ResourceError, match=f"exists and {whose}.*kubectl label"):
        ClusterNamespaceProvider().apply(declared)
    ClusterNamespaceProvider().remove(declared)
    assert server.namespaces["lake"]["metadata"]["labels"] == labels


def test_data_that_is_to_be_kept_keeps_its_namespace(
    server: ApiServer, declared: ClusterNamespaceInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ClusterNamespaceProvider()
    provider.apply(declared)
    monkeypatch.setenv(KEEP_DATA_VARIABLE, "keep")
    provider.remove(declared)
    assert "lake" in server.namespaces


def test_a_refusal_says_what_the_cluster_said(server: ApiServer, declared: ClusterNamespaceInputs) -> None:
    server.forbids = True
    with pytest.raises(ResourceError, match="refuses"):
        ClusterNamespaceProvider().apply(declared)


def test_a_cluster_that_is_away_is_unreachable(server: ApiServer, declared: ClusterNamespaceInputs) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(UnreachableError, match="does not answer"):
        ClusterNamespaceProvider().observe(declared)
