"""Images pushed by the real crane: to the registry that it brings along, and to one that asks who we are."""

import base64
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from tests.unit.images.conftest import Shelf
from toolchain import ToolMissingError, locate
from toolchain.images.errors import ImageError
from toolchain.images.registry import Place, Registry, push
from toolchain.images.store import Built

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def crane() -> Path:
    try:
        return locate("crane").executables["crane"]
    except ToolMissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def served(crane: Path) -> Iterator[str]:
    """The address of an empty registry."""
    process = subprocess.Popen(
        [crane, "registry", "serve", "--address", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        port = re.search(r"serving on port (\d+)", process.stderr.readline())
        assert port
        yield f"127.0.0.1:{port[1]}"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Two images that share their base."""
    shelf = Shelf(tmp_path / "images")
    base = shelf.layer({"etc/passwd": b"root"})
    for name in ("minio", "jaeger"):
        shelf.put(name, {"base": base, name: shelf.layer({f"opt/{name}": name.encode()})})
    return shelf


def images(shelf: Shelf) -> dict[str, Built]:
    return dict(shelf.store.read().images)


def asked(crane: Path, *words: str) -> bytes:
    return subprocess.run([crane, *words], capture_output=True, check=True, timeout=60).stdout


def test_what_is_pushed_is_there_to_the_byte_under_digest_and_version(
    crane: Path, served: str, shelf: Shelf
) -> None:
    place = f"{served}/team/lake"
    assert push(shelf.store, images(shelf), place) == ["jaeger", "minio"]
    for name, built in images(shelf).items():
        manifest = shelf.store.blob(built.digest).read_bytes()
        for reference in (f"{place}/{name}:1.0", f"{place}/{name}@{built.digest}"):
            assert asked(crane, "manifest", reference) == manifest
        for layer in json.loads(manifest)["layers"]:
            content = asked(crane, "blob", f"{place}/{name}@{layer['digest']}")
            assert content == shelf.store.blob(layer["digest"]).read_bytes()


def test_what_is_there_is_not_pushed_again_and_a_version_is_moved(
    crane: Path, served: str, shelf: Shelf
) -> None:
    push(shelf.store, images(shelf), served)
    assert push(shelf.store, images(shelf), served) == []
    changed = shelf.put("minio", {"other": shelf.layer({"opt/minio": b"another"})})
    assert push(shelf.store, images(shelf), served) == ["minio"]
    assert asked(crane, "digest", f"{served}/minio:1.0").decode().strip() == changed.digest


@dataclass
class Guarded:
    """A registry that knows one user and has every image; it takes none."""

    digest: str
    bearer: bool = False
    password: str = "s3cret"
    address: str = ""
    tokens: str = ""
    """Address of its token server, if that is another."""
    forms: list[str] = field(default_factory=list)
    requests: int = 0


class _Handler(BaseHTTPRequestHandler):
    guarded: Guarded
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        self.guarded.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        basic = "Basic " + base64.b64encode(f"robot:{self.guarded.password}".encode()).decode()
        given = self.headers.get("Authorization", "")
        if urlsplit(self.path).path == "/token":
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            self.guarded.forms.append(form.get("grant_type", "basic"))
            fine = given == basic or form.get("refresh_token") == self.guarded.password
            self._answer(200 if fine else 401, body=b'{"token": "t", "access_token": "t"}')
        elif given != ("Bearer t" if self.guarded.bearer else basic):
            url = f"http://{self.guarded.tokens or self.guarded.address}/token"
            asks = f'Bearer realm="{url}",service="x"' if self.guarded.bearer else 'Basic realm="x"'
            self._answer(401, {"WWW-Authenticate": asks}, b'{"errors": [{"code": "UNAUTHORIZED"}]}')
        elif self.command == "POST":
            self._answer(403, body=b'{"errors": [{"code": "DENIED", "message": "the quota is used up"}]}')
        elif "/blobs/" in self.path:
            self._answer(404)
        else:
            self._answer(200, {"Docker-Content-Digest": self.guarded.digest, "Content-Type": MANIFEST})

    do_GET = do_HEAD = do_POST = _serve  # noqa: N815 - the names are http.server's

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"{}") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def guarded(shelf: Shelf) -> Iterator[Guarded]:
    made = Guarded(images(shelf)["minio"].digest)
    handler = type("Handler", (_Handler,), {"guarded": made})
    with ThreadingHTTPServer(("", 0), handler) as server:
        made.address = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of docker's configuration, empty; what it holds is written as `docker login` writes it."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def log_in(docker: Path, address: str, **entry: str) -> None:
    (docker / "config.json").write_text(json.dumps({"auths": {address: entry}}))


def auth(password: str) -> str:
    return base64.b64encode(f"robot:{password}".encode()).decode()


def finds(shelf: Shelf, guarded: Guarded) -> bool:
    """Whether the registry let us see that it has the image."""
    one = {"minio": images(shelf)["minio"]}
    return push(shelf.store, one, guarded.address) == []


@pytest.mark.parametrize("bearer", [False, True])
def test_the_user_of_dockers_configuration_is_known_to_the_registry(
    bearer: bool, crane: Path, guarded: Guarded, docker: Path, shelf: Shelf
) -> None:
    guarded.bearer = bearer
    log_in(docker, guarded.address, auth=auth("s3cret"))
    assert finds(shelf, guarded)
    assert set(guarded.forms) == ({"basic"} if bearer else set())


def test_an_identity_token_is_exchanged(crane: Path, guarded: Guarded, docker: Path, shelf: Shelf) -> None:
    guarded.bearer = True
    log_in(docker, guarded.address, auth=auth(""), identitytoken="s3cret")
    assert finds(shelf, guarded)
    assert set(guarded.forms) == {"refresh_token"}


def test_a_program_for_credentials_is_asked(
    crane: Path, guarded: Guarded, docker: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = docker / "docker-credential-vault"
    program.write_text('#!/bin/sh\necho \'{"Username": "robot", "Secret": "s3cret"}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(docker), prepend=os.pathsep)
    (docker / "config.json").write_text(json.dumps({"credHelpers": {guarded.address: "vault"}}))
    assert finds(shelf, guarded)


@pytest.mark.parametrize("password", [None, "wr0ng"])
def test_a_stranger_is_told_to_log_in_and_no_password_is_told(
    password: str | None, crane: Path, guarded: Guarded, docker: Path, shelf: Shelf
) -> None:
    if password:
        log_in(docker, guarded.address, auth=auth(password))
    with pytest.raises(ImageError, match=f"`docker login {guarded.address}` with a user") as caught:
        finds(shelf, guarded)
    assert "wr0ng" not in str(caught.value)
    assert auth("wr0ng") not in str(caught.value)


def test_a_refused_push_is_told_in_the_registrys_own_words(
    crane: Path, guarded: Guarded, docker: Path, shelf: Shelf
) -> None:
    log_in(docker, guarded.address, auth=auth("s3cret"))
    with pytest.raises(ImageError, match=r"jaeger:1\.0: .*DENIED: the quota is used up"):
        push(shelf.store, images(shelf), guarded.address)


@pytest.fixture
def elsewhere(guarded: Guarded) -> str:
    """The address of the registry as other machines see it."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not each.address.startswith("127."):
                return guarded.address.replace("127.0.0.1", each.address)
    pytest.skip("this machine has no address but loopback")


def test_another_machine_is_not_spoken_to_without_tls(
    crane: Path, guarded: Guarded, elsewhere: str, docker: Path, shelf: Shelf
) -> None:
    log_in(docker, elsewhere, auth=auth("s3cret"))
    with pytest.raises(ImageError, match=r"TLS"):
        push(shelf.store, images(shelf), elsewhere)
    assert guarded.requests == 0


def test_no_password_is_given_to_a_token_server_without_tls(
    crane: Path, guarded: Guarded, elsewhere: str, docker: Path, shelf: Shelf
) -> None:
    """As with a private address, crane alone would do it."""
    guarded.bearer, guarded.tokens = True, elsewhere
    log_in(docker, guarded.address, auth=auth("s3cret"))
    with pytest.raises(ImageError, match=f"{elsewhere} does not answer by TLS, and is not spoken to without"):
        finds(shelf, guarded)
    assert guarded.forms == []


def test_a_registry_that_is_away_is_named(crane: Path, shelf: Shelf) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    minio = images(shelf)["minio"]
    with pytest.raises(ImageError, match=rf"registry {address} does not take .*minio:1\.0: .*refused"):
        Registry(Place.parse(address)).push(shelf.store, "minio", minio)
