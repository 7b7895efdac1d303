"""A telemetry collector that keeps what it is sent."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Collector:
    """Its address, and what it has taken: paths and bodies."""

    endpoint: str
    taken: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def paths(self) -> set[str]:
        return {path for path, _ in self.taken}

    @property
    def spans(self) -> list[str]:
        """The names of all spans."""
        requests = [
            ExportTraceServiceRequest.FromString(body) for path, body in self.taken if path == "/v1/traces"
        ]
        return [
            span.name
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def collector(*, pause_s: float = 0.0) -> Iterator[Collector]:
    """A collector that takes what is sent `pause_s` seconds after it came."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            time.sleep(pause_s)
            running.taken.append((self.path, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        running = Collector(f"http://127.0.0.1:{server.server_port}")
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield running
        server.shutdown()
