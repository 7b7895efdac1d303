"""A small world of tools: archives made here, an HTTP server that can break off, recorded progress."""

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from toolchain.bom import Bom, Tool, parse_bom
from toolchain.cache import Cache, Receipt
from toolchain.fetch import Fetcher
from toolchain.platforms import Platform
from toolchain.sources import Workshop

PLATFORM = Platform("linux", "amd64")


def make_tar(members: dict[str, bytes | None], mode: str = "w:xz", executable: bool = True) -> bytes:
    """A tar archive; a member with None is a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if executable else 0o644
            if content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def mirrored(tool: Tool, content: bytes = b"program", platform: Platform = PLATFORM, **told: object) -> bytes:
    """An archive of a tool in a mirror, with its receipt; `told` replaces what that says."""
    receipt = Receipt(
        name=tool.name, version=tool.version, platform=str(platform), source="registry",
        location="2 Maven artifacts", checksum="sha256:jars", verified="every jar against jars.lock",
        source_digest=tool.source_digest("registry"), installed_at="", seconds=0,
    )  # fmt: skip
    text = replace(receipt, **told).to_json()  # type: ignore[arg-type]
    members = {"receipt.json": text.encode(), "bin": None, "bin/sample": content}
    return make_tar(members, mode="w:gz")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Site:
    """What a web server serves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    """Bytes after which the next responses break off."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of each request."""
    ranges: bool = True


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.site.requests.append((self.path, asked))
        content = self.site.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.site.ranges else 0
        if start >= len(content) > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.site.break_after.pop(0) if self.site.break_after else len(content)
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *_args: object) -> None:
        """Requests are kept in the site, not printed."""


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    handler = type("Handler", (_Handler,), {"site": served})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


class RecordedProgress:
    """Keeps what the installer said."""

    def __init__(self) -> None:
        self.starts: list[tuple[str, str]] = []
        self.steps: list[str] = []
        self.details: list[str] = []
        self.lines: list[str] = []

    def start(self, tool: str, position: str) -> None:
        self.starts.append((tool, position))

    def step(self, text: str) -> None:
        self.steps.append(text)

    def detail(self, text: str) -> None:
        self.details.append(text)

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def progress() -> RecordedProgress:
    return RecordedProgress()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipes folder of the test's own."""
    folder = tmp_path / "recipes"
    (folder / "wheels").mkdir(parents=True)
    for module in ("bom", "sbom", "sources.wheel", "sources.gomodule", "sources.ahead", "sources.maven"):
        monkeypatch.setattr(f"toolchain.{module}.RECIPES", folder)
    return folder


@pytest.fixture
def workshop(cache: Cache, progress: RecordedProgress) -> Workshop:
    def require(name: str) -> None:
        raise AssertionError(f"nothing here should need {name}")

    return Workshop(
        cache=cache,
        platform=PLATFORM,
        fetcher=Fetcher(),
        mirror=None,
        step=progress.step,
        detail=progress.detail,
        require=require,  # type: ignore[arg-type]  # a test that gets there has failed
        environment=dict(os.environ),
        compiling=lambda _environment: None,
    )


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


SAMPLE = """
[sample]
version = "1.2.3"
licence = "MIT"
homepage = "https://sample.test"
purpose = "is brought by tests"
executables = ["sample"]
disk_mb = 1
{source}
[sample.maven]
recipe = "sample"
"""


def sample_bom(source: str = 'no_vendor = "it is only a sample"', recipes: Path | None = None) -> Bom:
    """A bill of materials with one tool; its registry is Maven, which needs no compiler."""
    if recipes:
        folder = recipes / "sample"
        folder.mkdir(exist_ok=True)
        (folder / "jars.lock").touch()
        (folder / "pom.xml").touch()
    return parse_bom(SAMPLE.format(source=source))
