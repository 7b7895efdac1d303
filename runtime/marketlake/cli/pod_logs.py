"""`marketlake pod-logs`."""

import logging
import signal
import sys
import threading
from pathlib import Path

from marketlake.cli.exit_codes import ExitCode, PlatformUnreachableError
from marketlake.infrastructure.telemetry.pod_logs import ClusterApi, ClusterApiError, LogFolder, follow


def run(namespace: str, folder: Path) -> ExitCode:
    """Follow the logs of a namespace's pods until SIGTERM or SIGINT."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        api = ClusterApi.within(namespace)
    except ClusterApiError as error:
        raise PlatformUnreachableError(str(error)) from error
    follow(api, LogFolder(folder), stop)
    return ExitCode.COMPLETE
