"""kr8s as the platform connects with it, against a server that answers as the Kubernetes API does."""

import asyncio
import json
import socket
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kr8s.asyncio import Api
from marketlake.infrastructure.kubernetes import ClusterApiError
from marketlake.infrastructure.kubernetes.client import connect, listed, reported, within_pod

from tests.authority import Authority
from tests.cluster_api import HOST, api_server, kubeconfig, service_account

STREAMS = 150
"""More than an HTTP client of kr8s' own has connections."""


class Cluster(ThreadingHTTPServer):
    """It lists one pod to whoever has the right token, and its log is a stream that waits in between."""

    daemon_threads = True
    request_queue_size = STREAMS

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Answer)
        self.token = "t"
        self.asked = 0
        self.forbidden = False
        self.go_on = threading.Event()


class _Answer(BaseHTTPRequestHandler):
    server: Cluster

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._send(401, json.dumps({"message": "Unauthorized"}).encode())
        elif self.path.partition("?")[0].endswith("/log"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"first ")
            self.server.go_on.wait(20)
            self.wfile.write(b"last")
        elif self.server.forbidden:
            self._send(403, json.dumps({"message": "pods is forbidden"}).encode())
        else:
            self._send(200, json.dumps({"items": [{"metadata": {"name": "a"}}]}).encode())

    def _send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@dataclass
class Pod:
    """This process as a pod of the cluster."""

    cluster: Cluster
    account: Path
    texts: list[bytes] = field(default_factory=list)

    def api(self) -> Api:
        return within_pod("lake", timeout_s=10, account=self.account)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    with Cluster() as cluster:
        account = service_account(tmp_path, cluster, monkeypatch)
        threading.Thread(target=cluster.serve_forever, daemon=True).start()
        yield Pod(cluster, account)
        cluster.go_on.set()
        cluster.shutdown()


async def names(api: Api) -> list[str]:
    return [one["metadata"]["name"] for one in await listed(api, "v1", "pods", labels="a=b")]


async def log_of(api: Api, begun: asyncio.Semaphore) -> bytes:
    text = b""
    url = "pods/a/log"
    async with api.call_api("GET", version="v1", namespace="lake", url=url, stream=True) as answer:
        async for chunk in answer.aiter_bytes():
            text += chunk
            begun.release()
    return text


async def _times(count: int, begun: asyncio.Semaphore) -> None:
    for _ in range(count):
        await asyncio.wait_for(begun.acquire(), 20)


def test_a_pod_asks_with_its_account_alone(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{HOST}:1")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(pod.account.parent, 1)))
    assert asyncio.run(names(pod.api())) == ["a"]


def test_a_renewed_token_is_read_before_the_old_one_expires(pod: Pod) -> None:
    async def renewed() -> None:
        api = pod.api()
        await names(api)
        (pod.account / "token").write_text("renewed\n")
        pod.cluster.token = "renewed"
        assert await names(api) == ["a"]

    asyncio.run(renewed())
    assert pod.cluster.asked == 2


def test_an_expired_token_is_read_again_and_again_until_it_is_renewed(pod: Pod) -> None:
    async def expired() -> None:
        api = pod.api()
        pod.cluster.token = "renewed"
        with pytest.raises(ClusterApiError, match="pods of lake cannot be listed: Unauthorized"):
            await names(api)
        (pod.account / "token").unlink()
        with pytest.raises(ClusterApiError, match="No such file"):
            await names(api)
        (pod.account / "token").write_text("renewed")
        assert await names(api) == ["a"]

    asyncio.run(expired())


def test_a_refused_request_ends_no_stream(pod: Pod) -> None:
    async def refused() -> bytes:
        api, begun = pod.api(), asyncio.Semaphore(0)
        stream = asyncio.create_task(log_of(api, begun))
        await _times(1, begun)
        pod.cluster.forbidden = True
        with pytest.raises(ClusterApiError, match="pods is forbidden"):
            await names(api)
        pod.cluster.go_on.set()
        return await stream

    assert asyncio.run(refused()) == b"first last"


def test_streams_leave_a_connection_to_everything_else(pod: Pod) -> None:
    async def crowded() -> list[bytes]:
        api, begun = pod.api(), asyncio.Semaphore(0)
        streams = [asyncio.create_task(log_of(api, begun)) for _ in range(STREAMS)]
        await _times(STREAMS, begun)
        assert await names(api) == ["a"]
        pod.cluster.go_on.set()
        return await asyncio.gather(*streams)

    assert asyncio.run(crowded()) == [b"first last"] * STREAMS


@pytest.mark.parametrize("missing", ["address", "account"])
def test_what_is_no_pod_is_refused(missing: str, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "address":
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    else:
        (pod.account / "ca.crt").unlink()
    with pytest.raises(ClusterApiError, match="no pod with a service account"):
        pod.api()


def test_a_server_of_another_authority_is_not_trusted(pod: Pod) -> None:
    (pod.account / "ca.crt").write_text(Authority("another authority").certificate)
    with pytest.raises(ClusterApiError, match="certificate verify failed"):
        asyncio.run(names(pod.api()))


def test_a_cluster_of_any_version_is_connected_to_without_a_warning(tmp_path: Path) -> None:
    async def listing(port: int) -> list[str]:
        config = str(kubeconfig(tmp_path, port))
        return await names(
            await connect(kubeconfig=config, namespace="lake", connect_timeout_s=10, timeout_s=10)
        )

    with api_server() as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        server.minor = 99
        server.add("/api/v1/namespaces/lake/pods/x", labels={"a": "b"})
        assert asyncio.run(listing(server.server_port)) == ["x"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "parsing"), ("{}", "current-context"), (None, "credentials"), ("- a list", "list indices")],
)
def test_a_kubeconfig_that_names_no_cluster_is_refused(
    text: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ClusterApiError, match=reason):
        asyncio.run(connect(kubeconfig=str(path), connect_timeout_s=10, timeout_s=10))


def test_a_server_that_never_answers_is_waited_for_within_limits(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as silent:
        config = str(kubeconfig(tmp_path, silent.getsockname()[1]))
        with pytest.raises(ClusterApiError, match=r"no answer within 0\.5 s"):
            asyncio.run(connect(kubeconfig=config, connect_timeout_s=0.5, timeout_s=10))


@pytest.mark.parametrize(
    "error", [OSError("disk"), ValueError("disk"), LookupError("disk"), TimeoutError("disk")]
)
def test_a_failure_is_reported_with_what_was_asked(error: Exception) -> None:
    with (
        pytest.raises(ClusterApiError, match=r"the log broke off: .*disk") as caught,
        reported("the log broke off"),
    ):
        raise error
    assert caught.value.transient
