"""Puts images into the containerd of this node, under their tag and under their digest."""

import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.commands import run
from toolchain.errors import CommandFailedError
from toolchain.images.errors import ImageError
from toolchain.images.image import NOWHERE
from toolchain.images.layer import Member, add
from toolchain.images.store import Built, Store

SOCKET = Path("/run/marketlake-cluster/containerd/containerd.sock")
"""Of the node that `make cluster` makes. Behind the usual one another's containerd, Docker's for instance, may be."""
KUBERNETES = "k8s.io"
"""The namespace in containerd that the kubelet's images lie in."""


@dataclass(frozen=True)
class Containerd:
    """The containerd behind a socket."""

    socket: Path = SOCKET
    namespace: str = KUBERNETES
    snapshotter: str | None = None
    """None: the one that containerd has by default."""

    @property
    def is_there(self) -> bool:
        """Whether this machine is a node, as far as may be seen."""
        with suppress(PermissionError):
            return self.socket.is_socket()
        return True

    @property
    def is_open(self) -> bool:
        """Whether this user may load images."""
        return os.access(self.socket, os.W_OK)

    def known(self) -> dict[str, str]:
        """Every image's name → digest.

        Raises:
            ImageError: containerd does not answer.
        """
        try:
            lines = run([*self._ctr, "images", "list"]).splitlines()[1:]
        except CommandFailedError as error:
            raise ImageError(f"the images of {self.socket} cannot be listed: {error}") from error
        fields = [line.split() for line in lines]
        return {each[0]: each[2] for each in fields if len(each) > 2}

    def load(
        self, store: Store, images: Mapping[str, Built], tell: Callable[[str], None] = lambda _text: None
    ) -> list[str]:
        """Import those of the images that are not there; gives their names.

        Raises:
            ImageError: containerd does not answer or refuses one.
        """
        known = self.known()
        loaded = []
        for name, built in images.items():
            if any(known.get(each) != built.digest for each in names_of(name, built)):
                tell(name)
                self._import(store, name, built)
                loaded.append(name)
        return loaded

    def _import(self, store: Store, name: str, built: Built) -> None:
        chosen = ["--snapshotter", self.snapshotter] if self.snapshotter else []
        command = [*self._ctr, "images", "import", *chosen, "-"]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise ImageError(f"cannot start {command[0]}: {error}") from error
        with process:
            broke = False
            try:
                if process.stdin is not None:
                    with closing(process.stdin), tarfile.open(fileobj=process.stdin, mode="w|") as tar:
                        for path, member in archive(store, name, built):
                            add(tar, path, member)
            except BrokenPipeError:
                broke = True  # it says why below
            except BaseException:
                process.kill()
                raise
            said = process.stdout.read().decode(errors="replace") if process.stdout else ""
        if process.returncode != 0 or broke:
            raise ImageError(f"{self.socket} does not take the image {name} {built.version}: {said.strip()}")

    @property
    def _ctr(self) -> list[str]:
        return ["ctr", "--address", str(self.socket), "--namespace", self.namespace]


def names_of(name: str, built: Built) -> list[str]:
    """What an image is called on a node: by version for people, by digest for pods."""
    return [f"{NOWHERE}/{name}:{built.version}", f"{NOWHERE}/{name}@{built.digest}"]


def archive(store: Store, name: str, built: Built) -> Iterator[tuple[str, Member]]:
    """An OCI archive of one image, in which it has all its names."""
    manifest = store.manifest(built)
    described: dict[str, Any] = {
        "mediaType": manifest["mediaType"],
        "digest": built.digest,
        "size": store.blob(built.digest).stat().st_size,
        "platform": {"os": "linux", "architecture": built.architecture},
    }
    named = [
        {**described, "annotations": {"io.containerd.image.name": each}} for each in names_of(name, built)
    ]
    yield "oci-layout", Member(b'{"imageLayoutVersion": "1.0.0"}')
    yield "index.json", Member(json.dumps({"schemaVersion": 2, "manifests": named}).encode())
    for digest in [
        built.digest,
        manifest["config"]["digest"],
        *dict.fromkeys(layer["digest"] for layer in manifest["layers"]),
    ]:
        yield f"blobs/{digest.replace(':', '/')}", Member(store.blob(digest))
