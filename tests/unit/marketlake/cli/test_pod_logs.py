"""`marketlake pod-logs`."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from marketlake.cli import pod_logs
from marketlake.cli.exit_codes import ExitCode, PlatformUnreachableError
from marketlake.infrastructure.telemetry.pod_logs import LogFolder, PodLogs


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command takes them for itself."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def test_outside_of_a_pod_it_says_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(PlatformUnreachableError, match="pod"):
        pod_logs.run("lake", tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_follows_until_it_is_told_to_end(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[LogFolder] = []

    async def follow(_logs: object, folder: LogFolder) -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            ended.append(folder)
            raise

    monkeypatch.setattr(PodLogs, "within", classmethod(lambda _cls, _namespace: object()))
    monkeypatch.setattr(pod_logs, "follow", follow)
    assert pod_logs.run("lake", tmp_path / "logs") is ExitCode.COMPLETE
    assert len(ended) == 1
    assert (tmp_path / "logs").is_dir()
