"""The host, served in this process over real gRPC, and projects whose Python tells how it was started."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto.language_pb2 import ProgramInfo
from pulumi.runtime.proto.language_pb2_grpc import (
    LanguageRuntimeStub,
    add_LanguageRuntimeServicer_to_server,
)

from toolchain.language_host.service import EXECUTOR, LanguageHost

ENGINE = "127.0.0.1:1"


@pytest.fixture(scope="session")
def host() -> Iterator[LanguageRuntimeStub]:
    """What the engine calls."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        add_LanguageRuntimeServicer_to_server(LanguageHost(ENGINE), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield LanguageRuntimeStub(channel)
    asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@dataclass(frozen=True)
class Project:
    """A project's folder, with a virtual environment in ``.venv``."""

    folder: Path

    def info(self, entry_point: str = ".", **options: str) -> ProgramInfo:
        """The project as the engine describes it; ``virtualenv=""`` leaves that option out."""
        told = Struct()
        told.update({name: value for name, value in ({"virtualenv": ".venv"} | options).items() if value})
        return ProgramInfo(
            root_directory=str(self.folder),
            program_directory=str(self.folder),
            entry_point=entry_point,
            options=told,
        )

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    def python(self, text: str) -> None:
        """Put a shell script in the place of the virtual environment's Python."""
        program(self.venv / "bin" / "python", f"#!/bin/sh\n{text}\n")

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose Python is the one of these tests."""
    made = Project(tmp_path / "project")
    made.python(f'exec {sys.executable} "$@"')
    return made


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program on PATH that runs Pulumi programs; its text can be replaced."""
    path = tmp_path / "bin" / EXECUTOR
    program(path, "")
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")
    return path


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
