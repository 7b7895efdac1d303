"""A Kubernetes API server that keeps objects in memory, as far as namespaces, lists and deletions need one."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from tests.authority import Authority

HOST = "127.0.0.1"


class ApiServer(ThreadingHTTPServer):
    """Objects by their path."""

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Requests)
        self.objects: dict[str, dict[str, Any]] = {}
        self.forbidden: set[str] = set()
        self.minor = 33

    def add(self, path: str, *, labels: dict[str, str], **more: Any) -> None:
        self.objects[path] = {"metadata": {"name": path.rpartition("/")[2], "labels": labels}, **more}


class _Requests(BaseHTTPRequestHandler):
    server: ApiServer

    def log_message(self, *_: object) -> None: ...

    def answer(self, code: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle_object(self) -> None:
        path, _, query = self.path.partition("?")
        path, objects = path.rstrip("/"), self.server.objects
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        if path == "/version":
            self.answer(
                200,
                {"major": "1", "minor": f"{self.server.minor}+", "gitVersion": f"v1.{self.server.minor}.0"},
            )
        elif path in self.server.forbidden:
            self.answer(403, {"kind": "Status", "message": f"{path} is forbidden", "code": 403})
        elif self.command == "POST":
            objects[f"{path}/{body['metadata']['name']}"] = body
            self.answer(201, body)
        elif path in objects:
            if self.command == "PATCH":
                objects[path]["metadata"].setdefault("labels", {}).update(body["metadata"]["labels"])
            self.answer(200, objects.pop(path) if self.command == "DELETE" else objects[path])
        elif _is_list(path):
            found = [item for known, item in objects.items() if known.startswith(f"{path}/")]
            if "labelSelector" in query:
                wanted = dict(pair.split("=") for pair in _selector(query).split(","))
                found = [
                    item for item in found if wanted.items() <= item["metadata"].get("labels", {}).items()
                ]
            self.answer(200, {"items": found})
        else:
            self.answer(404, {"kind": "Status", "message": f"{path} not found", "code": 404})

    do_GET = do_POST = do_PATCH = do_DELETE = handle_object  # noqa: N815 - the base class looks for these


def _is_list(path: str) -> bool:
    """Whether it names a kind and no object: ``/api/v1/KINDS`` or ``/apis/GROUP/V/KINDS``, in a namespace or not."""
    parts = path.strip("/").split("/")
    inside = parts[2 if parts[0] == "api" else 3 :]
    return len(inside) in {1, 3}


def _selector(query: str) -> str:
    return parse_qs(query)["labelSelector"][0]


@contextmanager
def api_server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        running.daemon_threads = True
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def kubeconfig(folder: Path, port: int) -> Path:
    """A kubeconfig file for a server on that port."""
    place = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
    users = [{"name": "me", "user": {"token": "t"}}]
    document = {"clusters": [place], "contexts": [context], "current-context": "here", "users": users}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **document}))
    return path


def service_account(folder: Path, server: ThreadingHTTPServer, environment: pytest.MonkeyPatch) -> Path:
    """Make this process a pod of the cluster whose API a server is, which speaks TLS from then on.

    Returns:
        The folder of the pod's service account, with a token ``t``.
    """
    account, authority = folder / "serviceaccount", Authority()
    account.mkdir()
    (account / "token").write_text("t")
    (account / "ca.crt").write_text(authority.certificate)
    certificate, key = authority.issue(HOST)
    (folder / "server.pem").write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    environment.setenv("KUBERNETES_SERVICE_HOST", HOST)
    environment.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    return account
