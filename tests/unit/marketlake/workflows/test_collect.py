"""The flow's process as a whole: what it leaves behind when it ends."""

import os
import subprocess
import sys
from pathlib import Path

from marketlake.settings import PLATFORM_FILE_VARIABLE

from tests.unit.marketlake.infrastructure.telemetry.collector import collector
from tests.unit.marketlake.samples import settings

RUN = """
import os
from marketlake.infrastructure import telemetry
from marketlake.workflows import collect as flow

def collected(*_):
    with telemetry.span("step"):
        {ending}

flow._collect = collected
try:
    flow.collect.fn({{"venue": "binance"}})
finally:
    os._exit(0)  # nothing of the process goes on, not even the exporters' own threads
"""


def spans_of_a_run(folder: Path, *, ending: str) -> list[str]:
    with collector() as running:
        file = folder / "platform.json"
        file.write_text(settings(telemetry={"otlp_endpoint": running.endpoint}).to_json())
        subprocess.run(
            [sys.executable, "-c", RUN.format(ending=ending)],
            env=os.environ | {PLATFORM_FILE_VARIABLE: str(file), "PREFECT_HOME": str(folder)},
            check=True,
            timeout=120,
        )
        return running.spans


def test_the_span_around_the_run_is_sent_before_the_process_ends(tmp_path: Path) -> None:
    assert sorted(spans_of_a_run(tmp_path, ending="pass")) == ["collect", "step"]


def test_so_is_that_of_a_run_that_fails(tmp_path: Path) -> None:
    assert sorted(spans_of_a_run(tmp_path, ending="raise LookupError")) == ["collect", "step"]
