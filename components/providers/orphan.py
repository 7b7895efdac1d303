"""Ends a provider whose engine is gone.

Pulumi ends its providers when it ends. Killed, it cannot: a dynamic provider would wait for ever, go on with
what it was doing, and meet the next `pulumi up` at it.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable

POLL_S = 1.0

_watching = threading.Event()


def end_with_engine(arguments: list[str] | None = None, *, end: Callable[[], None] | None = None) -> None:
    """Watch the engine from now on, and end this process as soon as it is gone. Once is enough for a process.

    Args:
        arguments: the provider's command line; its last argument is the engine's address, ``host:port``. A
            process that was not started so, such as a test, is not watched.
        end: how to end; by default at once and without ceremony, as a killed process.
    """
    address = _address((sys.argv if arguments is None else arguments)[-1:])
    if address is None or _watching.is_set():
        return
    _watching.set()
    threading.Thread(target=_watch, args=(address, end or _end), name="end-with-engine", daemon=True).start()


def _address(arguments: list[str]) -> tuple[str, int] | None:
    host, _, port = arguments[0].rpartition(":") if arguments else ("", "", "")
    return (host, int(port)) if host and port.isdigit() else None


def _watch(address: tuple[str, int], end: Callable[[], None]) -> None:
    while _answers(address):
        time.sleep(POLL_S)
    end()


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionError:
        return False
    except OSError:
        return True  # out of file descriptors or time: that says nothing about the engine
    return True


def _end() -> None:
    os._exit(1)
