"""Small programs under a real supervisor, in folders of their own."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from marketlake.settings import HealthKind

from components.supervision import reservations
from components.supervision.layout import StackFolder
from components.supervision.program import HostProgram
from components.supervision.sockets import any_free
from components.supervision.supervisord import Supervisor
from tests.servers import server_folder

SERVER = """
import http.server, os, sys
print("serving, password", os.environ.get("PASSWORD"), flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
FAILING = """
import os, sys
print("cannot work with", os.environ["PASSWORD"], flush=True)
sys.exit(3)
"""


@pytest.fixture(autouse=True)
def register(tmp_path: Path) -> Iterator[Path]:
    """Where the stacks of this test have their reservations registered."""
    with pytest.MonkeyPatch.context() as patch:  # not the test's own, which would then be undone last
        patch.setattr(reservations, "register_folder", lambda: tmp_path / "register")
        yield tmp_path / "register"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A stack's folder; whatever runs in it is ended."""
    with server_folder() as path:
        yield path
        Supervisor(StackFolder(path)).stop()


@pytest.fixture
def program(folder: Path) -> Callable[..., HostProgram]:
    """Makes an HTTP server's program, or, changed by keywords, another."""

    def make(**changes: Any) -> HostProgram:
        port = changes.pop("port", None) or any_free()
        fields: dict[str, Any] = {
            "folder": str(folder),
            "name": "web",
            "argv": (sys.executable, "-c", SERVER, str(port)),
            "environment": {"GREETING": 'it\'s 100 % "fine"'},
            "secret_environment": {"PASSWORD": "hunter2-secret"},
            "files": {"plain.conf": "a = 1\n"},
            "secret_files": {"secret.conf": "hunter2-secret\n"},
            "hidden": ("hunter2-secret",),
            "volumes": {"data": 1},
            "setup": (),
            "tool_copies": {},
            "health": HealthKind.HTTP,
            "health_target": f"http://127.0.0.1:{port}/",
            "health_timeout_s": 20,
            "stop_signal": "TERM",
            "stop_grace_s": 5,
            "replicas": 1,
            "unprivileged": False,
        }
        return HostProgram.model_validate(fields | changes)

    return make
