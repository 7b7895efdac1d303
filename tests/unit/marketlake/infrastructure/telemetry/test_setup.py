import io
import logging
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.telemetry import setup
from opentelemetry.sdk.trace import TracerProvider

from tests.unit.marketlake.infrastructure.telemetry.collector import collector
from tests.unit.marketlake.samples import settings


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def test_a_line_says_when_who_and_what_and_no_secret() -> None:
    stream = io.StringIO()
    telemetry.configure("test", settings(), stream=stream)
    logging.getLogger("marketlake.x").warning("connecting with %s", "database-secret")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(" WARNING marketlake.x connecting with ***")


def test_a_line_within_a_span_carries_the_trace_id(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    telemetry.configure("test", settings(), stream=stream)
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        logging.getLogger("marketlake.x").info("hello")
    trace_id = format(span.get_span_context().trace_id, "032x")
    assert f"trace_id={trace_id} hello" in stream.getvalue()


def test_configuring_again_replaces_the_handlers() -> None:
    first, second = io.StringIO(), io.StringIO()
    telemetry.configure("test", settings(), stream=first)
    telemetry.configure("test", settings(), stream=second)
    logging.getLogger("marketlake.x").info("hello")
    assert first.getvalue() == ""
    assert second.getvalue().count("hello") == 1


def test_chatter_of_libraries_is_kept_down() -> None:
    stream = io.StringIO()
    telemetry.configure("test", settings(), stream=stream)
    logging.getLogger("httpx").info("HTTP Request: GET …")
    logging.getLogger("opentelemetry.exporter.otlp").error("connection refused")
    assert stream.getvalue() == ""


def test_a_terminal_that_is_gone_breaks_nothing() -> None:
    stream = io.StringIO()
    telemetry.configure("test", settings(), stream=stream)
    stream.close()
    logging.getLogger("marketlake.x").info("nobody reads this")


def test_flushing_what_was_never_set_up_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_configured", None)
    telemetry.flush()


PROGRAM = """
import logging, sys, time
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.telemetry import metrics
from tests.unit.marketlake.samples import settings
telemetry.configure("test", settings(telemetry={"otlp_endpoint": sys.argv[1]}))
with telemetry.span("work"):
    logging.getLogger("marketlake").info("inside")
metrics.files().add(1, {"venue": "x"})
began = time.monotonic()
telemetry.flush()
print(round(time.monotonic() - began, 2))
"""


def test_a_collector_that_is_down_delays_the_end_of_a_program_but_little() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "http://127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert float(done.stdout) < 2.0
    assert time.monotonic() - began < 15
    assert "inside" in done.stderr
    assert "Traceback" not in done.stderr
    assert "refused" not in done.stderr


def test_a_collector_that_is_slow_still_gets_the_last_span() -> None:
    with collector(pause_s=2.0) as running:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, running.endpoint],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert {"/v1/traces", "/v1/logs", "/v1/metrics"} <= running.paths
    assert running.spans == ["work"]
    assert 1.5 < float(done.stdout) < 5.5
