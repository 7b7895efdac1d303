"""Credentials of a registry, as `docker login` (or podman, crane, skopeo) wrote them."""

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.images.errors import ImageError

_HELPER = "docker-credential-"
_TOKEN_USER = "<token>"  # noqa: S105 - docker's mark for "the secret is an identity token"
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password, or a token that registries exchange for another one."""

    user: str
    password: str = field(repr=False)

    @property
    def is_token(self) -> bool:
        """Whether the password is a refresh token of OAuth 2."""
        return self.user == _TOKEN_USER


def credentials_for(host: str, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """What docker's configuration file has for a registry; None: nothing.

    Read are ``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``, and the programs for credentials that it
    names (``credHelpers``, ``credsStore``).

    Args:
        host: of the registry, with its port if it has one.
        environment: variables.

    Raises:
        ImageError: the file cannot be understood, or the program that it names does not answer.
    """
    folder = Path(environment.get("DOCKER_CONFIG") or Path(environment.get("HOME", "/")) / ".docker")
    path = folder / "config.json"
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}, which has the users of registries, cannot be read: {error}") from error
    program = told.get("credHelpers", {}).get(host) or told.get("credsStore")
    if program:
        return _from_program(program, host)
    entry = next(
        (
            told.get("auths", {}).get(key)
            for key in (host, f"https://{host}")
            if told.get("auths", {}).get(key)
        ),
        None,
    )
    return _from_entry(entry, path, host) if entry else None


def _from_entry(entry: Mapping[str, Any], path: Path, host: str) -> Credentials:
    if token := entry.get("identitytoken"):
        return Credentials(_TOKEN_USER, token)
    try:
        user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (KeyError, binascii.Error, UnicodeDecodeError):
        colon = user = password = ""
    if not colon:
        raise ImageError(
            f"{path} has an entry for {host} without user and password: `docker login {host}` writes it anew"
        )
    return Credentials(user, password)


def _from_program(name: str, host: str) -> Credentials | None:
    """Ask a program as docker does: the host on its input, JSON on its output."""
    try:
        done = subprocess.run(
            [f"{_HELPER}{name}", "get"],
            input=host,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(
            f"docker's configuration names {_HELPER}{name} for {host}, which does not work: {error}"
        ) from error
    if done.returncode != 0:
        if "credentials not found" in done.stdout:
            return None
        raise ImageError(f"{_HELPER}{name} gives nothing for {host}: {(done.stdout or done.stderr).strip()}")
    try:
        told = json.loads(done.stdout)
        return Credentials(told["Username"], told["Secret"])
    except (ValueError, KeyError) as error:
        raise ImageError(
            f"{_HELPER}{name} answers for {host} with something that is no user and secret"
        ) from error
