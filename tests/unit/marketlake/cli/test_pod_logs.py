"""`marketlake pod-logs`."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from marketlake.cli import pod_logs
from marketlake.cli.exit_codes import ExitCode, PlatformUnreachableError
from marketlake.infrastructure.telemetry.pod_logs import ClusterApi


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


def test_it_follows_until_it_is_told_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = []

    def follow(_api: object, folder: object, stop: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        followed.append((folder, stop.wait(5)))  # type: ignore[attr-defined]

    monkeypatch.setattr(ClusterApi, "within", classmethod(lambda _cls, _namespace: object()))
    monkeypatch.setattr(pod_logs, "follow", follow)
    assert pod_logs.run("lake", tmp_path / "logs") is ExitCode.COMPLETE
    assert followed[0][1] is True
    assert (tmp_path / "logs").is_dir()
