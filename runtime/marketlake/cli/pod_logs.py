"""`marketlake pod-logs`."""

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path

from marketlake.cli.exit_codes import ExitCode, PlatformUnreachableError
from marketlake.infrastructure.kubernetes import ClusterApiError
from marketlake.infrastructure.telemetry.pod_logs import LogFolder, PodLogs, follow


def run(namespace: str, folder: Path) -> ExitCode:
    """Follow the logs of a namespace's pods until SIGTERM or SIGINT."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        logs = PodLogs.within(namespace)
    except ClusterApiError as error:
        raise PlatformUnreachableError(str(error)) from error
    asyncio.run(_follow(logs, LogFolder(folder)))
    return ExitCode.COMPLETE


async def _follow(logs: PodLogs, folder: LogFolder) -> None:
    following = asyncio.ensure_future(follow(logs, folder))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, following.cancel)
    with suppress(asyncio.CancelledError):
        await following
