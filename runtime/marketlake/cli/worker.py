"""`marketlake worker`."""

import os
import signal
import sys
import threading
from functools import partial

from marketlake.cli.exit_codes import ExitCode
from marketlake.infrastructure import telemetry
from marketlake.settings import Settings

_DEFAULTS = {
    # One file at a time is inflated and parsed per thread; more threads of the engines only cost memory.
    "POLARS_MAX_THREADS": "2",
    "RAYON_NUM_THREADS": "2",
    "TOKIO_WORKER_THREADS": "2",
    "OMP_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # its own pool keeps what it once had
}


def run(environment: str | None) -> ExitCode:
    """Work until SIGTERM or SIGINT."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    settings = Settings.load(environment)
    telemetry.configure("collection-worker", settings)
    from marketlake.archive.collection.collector import Collector
    from marketlake.pipeline.ingest.bronze import ingest
    from marketlake.pipeline.ingest.zip_member import InflationLimits
    from marketlake.sync.copy import copy_file
    from marketlake.workers.worker import run as work

    stop = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: stop.set())
    limits = InflationLimits.of(settings.collection)
    handler = partial(Collector, copy=copy_file, ingest=partial(ingest, limits=limits))
    unfinished = work(settings, handler, stop=stop)
    telemetry.flush()
    if unfinished:
        # Threads that are still at work would keep the process alive; their tasks are delivered again.
        sys.stderr.flush()
        os._exit(ExitCode.COMPLETE)
    return ExitCode.COMPLETE
