"""Waiting until a service answers."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from marketlake.settings import HealthKind

_PAUSE_S = 0.1
_ANSWER_S = 2.0
_QUOTED_LINES = 12


class NotReadyError(Exception):
    """A service did not come up; the message quotes the end of its log."""


def answers(kind: HealthKind, target: str) -> bool:
    """Whether the health check succeeds now. HealthKind.PROCESS asks nothing and is always true."""
    match kind, target:
        case HealthKind.HTTP, str(url):
            try:
                with _OPENER.open(url, timeout=_ANSWER_S) as response:
                    return bool(response.status < 400)
            except (urllib.error.URLError, OSError, ValueError):
                return False
        case HealthKind.TCP, str(address):
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
            except OSError:
                return False
    return True


def await_ready(
    check: Callable[[], bool], failed: Callable[[], str | None], *, timeout_s: float, subject: str
) -> None:
    """Poll `check` ten times a second.

    Args:
        check: whether the service is ready.
        failed: why waiting on is useless, or None while there is hope.
        timeout_s: seconds until waiting ends.
        subject: the service's name, for the message.

    Raises:
        NotReadyError: `failed` says so, or time is up.
    """
    deadline = time.monotonic() + timeout_s
    while not check():
        reason = failed()
        if reason is None and time.monotonic() > deadline:
            reason = f"it did not answer within {timeout_s:g} s"
        if reason is not None:
            raise NotReadyError(f"{subject} did not start: {reason}.")
        time.sleep(_PAUSE_S)


def last_lines(log: Path, *, hiding: Sequence[str] = ()) -> str:
    """The end of a log, as :func:`quoted` shows it."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            return quoted(file.read().decode(errors="replace"), hiding=hiding)
    except OSError:
        return quoted("")


def quoted(output: str, *, hiding: Sequence[str] = ()) -> str:
    """The last lines of what a program wrote, indented for a message; each text of `hiding` is blotted out."""
    text = "\n".join(f"    {line}" for line in output.splitlines()[-_QUOTED_LINES:]) or "    (nothing)"
    for secret in sorted(filter(None, hiding), key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    return text


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback is never behind a proxy
