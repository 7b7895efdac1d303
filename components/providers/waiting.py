"""Waiting for a server that is starting."""

import time
from collections.abc import Callable
from typing import TypeVar

from components.providers.base import UnreachableError

START_TIMEOUT_S = 60.0
"""How long a resource waits for its server when it is created or changed: Kafka may take 20 s."""
REFRESH_TIMEOUT_S = 3.0
"""How long a refresh waits for a server that may well be down."""

Result = TypeVar("Result")


class NotReady(Exception):  # noqa: N818 - a signal to try again, not an error that anybody sees
    """The server does not answer yet; the text says how that showed."""


def wait_for(action: Callable[[], Result], *, server: str, timeout_s: float) -> Result:
    """Repeat `action` with growing pauses (0.1 s to 2 s) for as long as it raises :class:`NotReady`.

    Args:
        action: what to do.
        server: the server's name and address, for the message.
        timeout_s: seconds after which waiting ends.

    Raises:
        UnreachableError: the server did not answer in time.
    """
    deadline = time.monotonic() + timeout_s
    pause = 0.1
    while True:
        try:
            return action()
        except NotReady as signal:
            if time.monotonic() + pause > deadline:
                raise UnreachableError(
                    f"{server} did not answer within {timeout_s:g} s ({signal}). Look at `marketlake "
                    "status` and its log, start it (`make up` repairs what was stopped) and run this again."
                ) from None
        time.sleep(pause)
        pause = min(pause * 1.6, 2.0)
