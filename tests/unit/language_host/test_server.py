"""The host as the program that the command line starts: it tells its port, and ends with its engine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from pulumi.runtime.proto import language_pb2 as proto
from pulumi.runtime.proto.language_pb2_grpc import LanguageRuntimeStub

from tests.unit.language_host.conftest import Project
from toolchain.language_host import server

ROOT = Path(__file__).parents[3]
HOST = [sys.executable, "-m", "toolchain.language_host"]


@pytest.fixture
def engine() -> Iterator[socket.socket]:
    """Something that listens where the engine would."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def address(engine: socket.socket) -> str:
    return f"127.0.0.1:{engine.getsockname()[1]}"


class Started:
    """A host in a process of its own, and a plug-in that it runs."""

    def __init__(self, argv: list[str], project: Project) -> None:
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{words[0]}")
        project.python("echo $$; exec sleep 600")
        request = proto.RunPluginRequest(info=project.info())
        self.stream: Any = LanguageRuntimeStub(self.channel).RunPlugin(request, timeout=120)
        self.plugin = psutil.Process(int(next(self.stream).stdout))
        self.host = psutil.Process(self.plugin.ppid())

    def end(self) -> None:
        self.channel.close()
        for process in (self.process, self.plugin, self.host):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_host_and_all_that_it_runs(
    number: signal.Signals, engine: socket.socket, project: Project
) -> None:
    started = Started([*HOST, "--logtostderr", "-v=9", "--tracing", "file:x", address(engine)], project)
    try:
        started.process.send_signal(number)
        assert started.process.wait(20) == 0
        assert not started.plugin.is_running()
    finally:
        started.end()


def test_the_host_ends_with_its_parent(engine: socket.socket, project: Project) -> None:
    parent = ["sh", "-c", f'{sys.executable} -m toolchain.language_host "$0" & wait', address(engine)]
    started = Started(parent, project)
    try:
        assert started.host.pid != started.process.pid
        started.process.kill()
        psutil.wait_procs([started.host, started.plugin], timeout=20)
        assert not started.host.is_running()
        assert not started.plugin.is_running()
    finally:
        started.end()


def test_the_host_ends_when_nothing_listens_at_the_engines_address(
    engine: socket.socket, project: Project
) -> None:
    started = Started([*HOST, address(engine)], project)
    try:
        time.sleep(2 * server._WATCH_SECONDS)
        assert started.host.is_running()
        engine.close()
        assert started.process.wait(30) == 0
        assert not started.plugin.is_running()
    finally:
        started.end()


def test_messages_may_be_large(engine: socket.socket, project: Project) -> None:
    large = {f"lake:{number}": "x" * (1 << 20) for number in range(8)}
    started = Started([*HOST, address(engine)], project)
    try:
        host = LanguageRuntimeStub(started.channel)
        answer = host.Run(proto.RunRequest(info=project.info(virtualenv="gone"), config=large), timeout=60)
        assert "does not exist" in answer.error
    finally:
        started.end()


def test_without_an_address_the_usage_is_told() -> None:
    done = subprocess.run(HOST, capture_output=True, text=True, check=False, cwd=ROOT, env=dict(os.environ))
    assert done.returncode == 2
    assert "the following arguments are required: engine" in done.stderr
