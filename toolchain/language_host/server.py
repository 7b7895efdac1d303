"""Starts the service, tells its port, and ends it with the engine that it serves."""

import argparse
import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

# Programs are started from a process that runs gRPC: its fork handlers would wait for threads that a child lacks.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

import grpc
from pulumi.runtime.proto.language_pb2_grpc import add_LanguageRuntimeServicer_to_server

from toolchain.language_host.service import LanguageHost

MESSAGE_LIMIT = 400 << 20
"""Bytes; the engine's own limit."""
_WATCH_SECONDS = 1.0
_ASK_EVERY = 5
"""The engine is asked for by a connection at each fifth look at the parent."""


def main() -> None:
    """Serve until the engine ends, or says so by SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="pulumi-language-python", description="Started by Pulumi's command line."
    )
    parser.add_argument("--tracing", help="where programs send their traces")
    parser.add_argument("--logtostderr", action="store_true", help="accepted for the vendor's sake")
    parser.add_argument("-v", type=int, default=0, help="accepted for the vendor's sake")
    parser.add_argument("engine", help="address of the engine")
    told = parser.parse_args()
    asyncio.run(serve(told.engine, tracing=told.tracing, announce=lambda port: print(port, flush=True)))


async def serve(engine: str, *, tracing: str | None, announce: Callable[[int], None]) -> None:
    """Serve on a free port of the loopback interface until the engine ends or a signal arrives.

    Args:
        engine: its address, ``HOST:PORT``.
        tracing: where programs send their traces, if anywhere.
        announce: called with the port as soon as calls are answered.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    parent = os.getppid()
    limits = [
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ]
    server = grpc.aio.server(options=limits)
    host = LanguageHost(engine, tracing)
    add_LanguageRuntimeServicer_to_server(host, server)  # type: ignore[arg-type]  # streams by writing: gRPC takes both
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    announce(port)
    await _until_the_end(stop, parent, engine)
    await host.processes.end()
    await server.stop(grace=None)


async def _until_the_end(stop: asyncio.Event, parent: int, engine: str) -> None:
    """Return when asked to stop, when the parent is another, or when nothing listens at the engine's address."""
    looks = 0
    while os.getppid() == parent:
        with suppress(TimeoutError):
            async with asyncio.timeout(_WATCH_SECONDS):
                await stop.wait()
                return
        looks += 1
        if looks % _ASK_EVERY == 0 and not await _listens(engine):
            return


async def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    writer.close()
    return True
