"""The flow's process as a whole: what it requests, and what it leaves behind when it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from marketlake.settings import PLATFORM_FILE_VARIABLE

from tests.unit.marketlake.infrastructure.telemetry.collector import collector
from tests.unit.marketlake.samples import settings

RUN = """
import json, os, sys
from contextlib import nullcontext
from marketlake.workflows import collect as flow

class Database:
    def __init__(self, *_, **__): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def transaction(self): return nullcontext("connection")

def request(connection, batch_id, selection, endpoint, *, traceparent):
    print(json.dumps([str(batch_id), selection.data_type, endpoint and endpoint.bucket, bool(traceparent)]))

flow.Postgres, flow.migrate, flow.batches.request = Database, lambda _: 0, request
try:
    state = flow.collect.fn(json.loads(sys.argv[1]), {"endpoint": "http://127.0.0.1:1", "bucket": "b"})
    print(state.name, state.message)
except Exception as error:
    print(type(error).__name__)
finally:
    sys.stdout.flush()
    os._exit(0)  # nothing of the process goes on, not even the exporters' own threads
"""


def run(folder: Path, selection: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What the flow says, and the spans that it sends."""
    with collector() as running:
        file = folder / "platform.json"
        file.write_text(settings(telemetry={"otlp_endpoint": running.endpoint}).to_json())
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(selection)],
            env=os.environ | {PLATFORM_FILE_VARIABLE: str(file), "PREFECT_HOME": str(folder)},
            check=True,
            timeout=120,
            capture_output=True,
            text=True,
        )
        return done.stdout.splitlines(), running.spans


def test_a_collection_is_requested_within_a_span_that_is_sent(tmp_path: Path) -> None:
    told, spans = run(tmp_path, {"venue": "binance", "market": "spot", "data_type": "klines"})
    batch, *rest = json.loads(told[0])
    assert rest == ["klines", "b", True]
    assert told[1] == f"Completed requested as batch {batch}"
    assert spans == ["request collection"]


def test_what_cannot_be_collected_is_refused_at_once(tmp_path: Path) -> None:
    told, spans = run(tmp_path, {"venue": "binance", "data_type": "bookDepth"})
    assert (told, spans) == (["SelectionError"], [])
