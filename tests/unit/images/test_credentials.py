"""Where a registry's user comes from."""

import base64
import json
import os
from pathlib import Path

import pytest

from toolchain.images.credentials import Credentials, credentials_for
from toolchain.images.errors import ImageError

HOST = "registry.example.com"


def docker(folder: Path, config: object) -> dict[str, str]:
    (folder / "config.json").write_text(json.dumps(config))
    return {"DOCKER_CONFIG": str(folder), "HOME": "/nowhere"}


def entry(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}"])
def test_what_docker_login_wrote_is_taken(tmp_path: Path, key: str) -> None:
    environment = docker(tmp_path, {"auths": {key: entry("robot", "a:b")}})
    assert credentials_for(HOST, environment) == Credentials("robot", "a:b")
    assert credentials_for("another.example.com", environment) is None


def test_without_a_file_there_is_nobody(tmp_path: Path) -> None:
    assert credentials_for(HOST, {"HOME": str(tmp_path)}) is None
    (tmp_path / ".docker").mkdir()
    docker(tmp_path / ".docker", {"auths": {HOST: entry("robot", "x")}})
    assert credentials_for(HOST, {"HOME": str(tmp_path)}) == Credentials("robot", "x")


def test_an_identity_token_is_known_as_one(tmp_path: Path) -> None:
    found = credentials_for(HOST, docker(tmp_path, {"auths": {HOST: {"identitytoken": "t"}}}))
    assert found is not None
    assert found.is_token
    assert found.password == "t"


@pytest.mark.parametrize("broken", [{"auth": "%%%"}, {"auth": "bm9jb2xvbg=="}, {"email": "x"}])
def test_a_broken_entry_is_an_error_with_a_remedy(tmp_path: Path, broken: dict[str, str]) -> None:
    with pytest.raises(ImageError, match=f"`docker login {HOST}` writes it anew"):
        credentials_for(HOST, docker(tmp_path, {"auths": {HOST: broken}}))


def test_a_broken_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ImageError, match="cannot be read"):
        credentials_for(HOST, {"DOCKER_CONFIG": str(tmp_path)})


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> dict[str, str]:
    path = folder / "docker-credential-vault"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return docker(folder, {"credsStore": "nobody", "credHelpers": {HOST: "vault"}})


def test_a_program_for_credentials_is_asked_for_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = program(
        tmp_path, monkeypatch, 'read host; echo "{\\"Username\\": \\"$host\\", \\"Secret\\": \\"s\\"}"'
    )
    assert credentials_for(HOST, environment) == Credentials(HOST, "s")


def test_a_program_that_knows_nobody_gives_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = program(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    assert credentials_for(HOST, environment) is None


@pytest.mark.parametrize(
    ("script", "said"), [("echo locked; exit 1", "locked"), ("echo {}", "no user and secret")]
)
def test_a_program_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    with pytest.raises(ImageError, match=f"docker-credential-vault.*{said}"):
        credentials_for(HOST, program(tmp_path, monkeypatch, script))


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="docker-credential-nobody"):
        credentials_for(HOST, docker(tmp_path, {"credsStore": "nobody"}))
