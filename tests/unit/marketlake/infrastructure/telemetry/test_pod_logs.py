"""The reader of pods' logs against a server that answers as the Kubernetes API does."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from marketlake.infrastructure.kubernetes import ClusterApiError
from marketlake.infrastructure.kubernetes.client import connect
from marketlake.infrastructure.telemetry.pod_logs import LogFolder, PodLogs, follow

from tests.cluster_api import HOST, kubeconfig
from tests.waiting import eventually


def at(second: int) -> str:
    return f"2026-11-24T16:00:{second:02}.000000000Z"


def running(name: str, start: str, *, after: str | None = None) -> dict[str, Any]:
    last = {"terminated": {"containerID": after}} if after else {}
    return {"name": name, "state": {"running": {}}, "containerID": start, "lastState": last}


def ended(name: str, start: str) -> dict[str, Any]:
    return {"name": name, "state": {"terminated": {"containerID": start}}, "containerID": start}


def crashing(name: str, start: str) -> dict[str, Any]:
    return {
        "name": name,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "containerID": start,
        "lastState": {"terminated": {"containerID": start}},
    }


def pod(
    name: str, service: str, *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {"marketlake/service": service}},
        "status": {"initContainerStatuses": list(init), "containerStatuses": list(containers)},
    }


@dataclass
class Api:
    """Pods and logs; a log is there by pod, container, and whether the previous one is asked for."""

    pods: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[tuple[str, str, bool], list[tuple[str, str]]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    away: bool = False


@contextmanager
def serving(api: Api) -> Iterator[int]:
    """Serve it, and yield the port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.path.rstrip("/") == "/version":
                self._send(json.dumps({"gitVersion": "v1.33.0"}).encode())
            elif api.away:
                self.send_error(503)
            elif parts.path == "/api/v1/namespaces/lake/pods":
                assert asked["labelSelector"] == "marketlake/service"
                self._send(json.dumps({"items": api.pods}).encode())
            else:
                name = parts.path.split("/")[-2]
                api.asked.append(asked | {"pod": name})
                found = api.logs.get((name, asked["container"], "previous" in asked), [])
                since = asked.get("sinceTime", "")[:19]  # the API looks at whole seconds
                lines = [f"{moment} {text}\n" for moment, text in list(found) if moment[:19] >= since]
                self._send("".join(lines).encode())

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Answer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def followed(api: Api, folder: Path, until: Callable[[], object], **options: int) -> None:
    """Follow until something holds, then end as on SIGTERM."""

    async def run(port: int) -> None:
        config = str(kubeconfig(folder, port))
        logs = PodLogs(await connect(kubeconfig=config, namespace="lake", connect_timeout_s=10, timeout_s=10))
        following = asyncio.create_task(follow(logs, LogFolder(folder, **options), every_s=0.05))
        try:
            await asyncio.to_thread(eventually, until, within_s=10)
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait_for(following, 10)

    with serving(api) as port:
        asyncio.run(run(port))


def text(folder: Path, service: str) -> str:
    file = folder / f"{service}.log"
    return file.read_text() if file.exists() else ""


def test_each_service_has_a_file_whatever_its_pods_are_called(tmp_path: Path) -> None:
    api = Api(
        pods=[
            pod("database-0", "database", running("database", "d"), init=(ended("setup", "s"),)),
            pod("run-x", "workflow-run", ended("prefect-job", "r")),
            pod(
                "telemetry-collector-0", "telemetry-collector", running("main", "m"), running("pod-logs", "p")
            ),
        ],
        logs={
            ("database-0", "setup", False): [(at(1), "set up")],
            ("database-0", "database", False): [(at(2), "ready")],
            ("run-x", "prefect-job", False): [(at(3), "collected")],
            ("telemetry-collector-0", "main", False): [(at(4), "collecting")],
            ("telemetry-collector-0", "pod-logs", False): [(at(5), "about itself")],
        },
    )
    followed(api, tmp_path, lambda: text(tmp_path, "telemetry-collector") and text(tmp_path, "workflow-run"))
    assert sorted(text(tmp_path, "database").splitlines()) == ["ready", "set up"]
    assert text(tmp_path, "workflow-run") == "collected\n"
    assert text(tmp_path, "telemetry-collector") == "collecting\n"


def test_a_broken_stream_goes_on_without_gaps_or_doubles(tmp_path: Path) -> None:
    log = [(at(1), "one"), ("2026-11-24T16:00:01.500000000Z", "two")]
    api = Api(pods=[pod("a", "worker", running("worker", "1"))], logs={("a", "worker", False): log})
    grown = threading.Event()

    def done() -> bool:
        if len(api.asked) > 2 and not grown.is_set():
            log.append(("2026-11-24T16:00:01.600000000Z", "three"))
            grown.set()
        return "three" in text(tmp_path, "worker")

    followed(api, tmp_path, done)
    assert text(tmp_path, "worker") == "one\ntwo\nthree\n"


def test_a_restart_of_the_reader_goes_on_where_it_was(tmp_path: Path) -> None:
    api = Api(
        pods=[pod("a", "worker", ended("worker", "1"))], logs={("a", "worker", False): [(at(1), "one")]}
    )
    followed(
        api,
        tmp_path,
        lambda: (
            (tmp_path / ".positions.json").exists() and "uid-a" in (tmp_path / ".positions.json").read_text()
        ),
    )
    api.pods.append(pod("b", "worker", ended("worker", "2")))
    api.logs["b", "worker", False] = [(at(2), "two")]
    followed(api, tmp_path, lambda: "two" in text(tmp_path, "worker"))
    assert text(tmp_path, "worker") == "one\ntwo\n"


def test_the_last_words_of_a_container_that_crashed_are_kept(tmp_path: Path) -> None:
    api = Api(
        pods=[
            pod("a", "worker", running("worker", "2", after="1")),
            pod("b", "store", crashing("store", "3")),
        ],
        logs={
            ("a", "worker", True): [(at(1), "killed")],
            ("a", "worker", False): [(at(2), "again")],
            ("b", "store", False): [(at(1), "no disk")],
        },
    )
    followed(api, tmp_path, lambda: "again" in text(tmp_path, "worker") and text(tmp_path, "store"))
    assert text(tmp_path, "worker") == "killed\nagain\n"
    assert text(tmp_path, "store") == "no disk\n"
    assert sum(asked["pod"] == "b" for asked in api.asked) == 1  # read to its end, and not again


def test_files_are_turned_over_before_they_fill_the_volume(tmp_path: Path) -> None:
    api = Api(
        pods=[pod("a", "worker", ended("worker", "1"))],
        logs={("a", "worker", False): [(at(number), f"{number:040}") for number in range(9)]},
    )
    followed(api, tmp_path, lambda: text(tmp_path, "worker").endswith(f"{8:040}\n"), rotate_bytes=150)
    kept = (tmp_path / "worker.log.1").read_text() + text(tmp_path, "worker")
    assert len(kept.splitlines()) == 5


def test_an_api_that_is_away_is_told_once_and_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api = Api(
        pods=[pod("a", "worker", ended("worker", "1"))],
        logs={("a", "worker", False): [(at(1), "one")]},
        away=True,
    )
    looks: list[None] = []

    def done() -> bool:
        looks.append(None)
        api.away = len(looks) < 10
        return "one" in text(tmp_path, "worker")

    followed(api, tmp_path, done)
    told = [
        one.message for one in caplog.records if one.name == "marketlake.infrastructure.telemetry.pod_logs"
    ]
    assert len(told) == 1
    assert "pods of lake cannot be listed" in told[0]


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    api = Api(
        pods=[pod("a", "worker", ended("worker", "1"))],
        logs={("a", "worker", False): [(at(1), "x" * 3_000_000), (at(2), "after")]},
    )
    followed(api, tmp_path, lambda: "after" in text(tmp_path, "worker"))
    long, after = text(tmp_path, "worker").splitlines()
    assert 1_000_000 < len(long) <= 2**20
    assert after == "after"


def test_outside_of_a_cluster_it_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterApiError, match="beside the telemetry collector"):
        PodLogs.within("lake")
