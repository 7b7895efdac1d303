"""`marketlake worker`."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from marketlake.cli.exit_codes import ExitCode, say
from marketlake.infrastructure import telemetry
from marketlake.settings import Settings

if TYPE_CHECKING:
    from marketlake.workers.dispatcher import TaskKind
    from marketlake.workers.worker import Companion, WorkerProcess

_DEFAULTS = {
    # One group at a time is inflated and parsed per thread; more threads of the engines only cost memory.
    "POLARS_MAX_THREADS": "2",
    "RAYON_NUM_THREADS": "2",
    "TOKIO_WORKER_THREADS": "2",
    "OMP_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # its own pool keeps what it once had
}

_MAINTAINED_EVERY_S = 6 * 3600
_COLLECTED_EVERY = 2_000
"""New objects after which the garbage collector runs: a file makes some thousand, hardly any in reference cycles."""


def run(environment: str | None) -> ExitCode:
    """Work until SIGTERM or SIGINT."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    settings = Settings.load(environment)
    telemetry.configure("collection-worker", settings)
    from marketlake.archive.collection.admission import Archive
    from marketlake.archive.collection.collector import Collector
    from marketlake.archive.collection.refiner import Refiner
    from marketlake.archive.collection.runs import Runs
    from marketlake.archive.collection.stores import Stores
    from marketlake.archive.collection.tasks import COLLECTION, REFINEMENT
    from marketlake.archive.collection.transfers import Transfers
    from marketlake.archive.discovery.catalogue import Catalogue
    from marketlake.archive.upkeep import Maintainer, Routine, prune
    from marketlake.infrastructure.storage.stores import Lake, landing_store
    from marketlake.pipeline.batch.silver import refine_many
    from marketlake.pipeline.ingest.bronze import Bronze, shape_of
    from marketlake.pipeline.ingest.committer import Committer
    from marketlake.pipeline.ingest.zip_member import InflationLimits
    from marketlake.sync.copy import copy_file
    from marketlake.workers.worker import CompanionEndedError
    from marketlake.workers.worker import run as work
    from marketlake.workflows.mirror import Mirror

    stop = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: stop.set())
    lake, landing = Lake.of(settings.object_store), landing_store(settings.object_store)
    bronze = Bronze(lake, landing, InflationLimits.of(settings.collection))
    archive = Archive(settings.event_bus)

    def beside(process: "WorkerProcess") -> "Sequence[Companion]":
        committer = Committer(process.postgres, lake, shape_of=shape_of, owner=archive)
        runs = Runs(process, stores=Stores(landing, lake.bucket), catalogue=Catalogue(lake).record)
        mirror = Mirror(process.postgres, settings.workflow_engine)
        maintainer = Maintainer(process.postgres, lake, settings.object_store)
        pruning = Routine("prune", lambda _: prune(process.postgres), first_after_s=60, every_s=3600)
        upkeep = Routine(
            "maintain",
            lambda wait: maintainer.maintain(wait=wait),
            first_after_s=600,
            every_s=_MAINTAINED_EVERY_S,
        )
        return (committer.run, runs.run, mirror.run, pruning.run, upkeep.run)

    with Transfers(landing, settings.collection, copy=copy_file, stop=stop) as transfers:

        def kinds(process: "WorkerProcess") -> "Mapping[str, TaskKind]":
            return {
                COLLECTION: Collector(process, transfers=transfers, lakehouse=bronze),
                REFINEMENT: Refiner(process, refine=partial(refine_many, lake)),
            }

        code = ExitCode.COMPLETE
        gc.collect()
        gc.freeze()  # the libraries' objects stay, and to go through them took a tenth of the time of small files
        gc.set_threshold(_COLLECTED_EVERY)
        try:
            at_work = work(settings, kinds, beside=beside, stop=stop)
        except CompanionEndedError as error:
            say(f"error: {error}")
            code, at_work = ExitCode.INCOMPLETE, 1
        telemetry.flush()
        if at_work:
            # These threads would keep the process alive, or break its end; their work is taken on by others.
            sys.stderr.flush()
            os._exit(code)
    return code
