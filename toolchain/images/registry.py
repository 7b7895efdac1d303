"""Pushes images to a registry with crane, without a container engine."""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolchain.cache import locate
from toolchain.commands import run
from toolchain.errors import CommandFailedError
from toolchain.images.errors import ImageError
from toolchain.images.store import Built, Store

_PLACE = re.compile(
    r"(?P<host>(?=localhost|[^/]*[.:])[a-zA-Z0-9.-]+(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?)"
    r"(?P<prefix>(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
)
_TIME = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ")
_REFUSED = re.compile(r"\b(UNAUTHORIZED|DENIED|401|403)\b")
_ERROR = "Error: "

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where images go: a registry, and the first part of their names in it."""

    host: str
    prefix: str
    """Without slashes around it; may be empty."""

    @classmethod
    def parse(cls, text: str) -> "Place":
        """From ``HOST[:PORT][/PREFIX]``; without a dot or a port, the host would be taken for a prefix elsewhere.

        Raises:
            ImageError: it is something else.
        """
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ImageError(
                f"{text!r} names no place in a registry: write HOST[:PORT][/PREFIX], without https:// and in lower "
                "case, the host with a dot or a port, e.g. registry.example.com/platform"
            )
        return cls(found["host"], found["prefix"].strip("/"))

    def repository(self, name: str) -> str:
        """The repository of an image, with the registry's host."""
        return "/".join(filter(None, [self.host, self.prefix, name]))


def push(
    store: Store, images: Mapping[str, Built], registry: str, *, tell: Tell = lambda _text: None
) -> list[str]:
    """Push images under their digests and versions; what the registry has already is not sent again.

    Users and passwords are those of docker's configuration, which crane reads by itself.

    Args:
        store: holds them.
        images: name → image.
        registry: ``HOST[:PORT][/PREFIX]``.
        tell: called with how far it is.

    Returns:
        The names of those that were not there before.

    Raises:
        ToolMissingError: crane is not installed.
        ImageError: the registry is away, refuses us, or breaks off.
    """
    client = Registry(Place.parse(registry), tell)
    return [name for name, built in images.items() if client.push(store, name, built)]


class Registry:
    """A registry, spoken to with crane.

    Raises:
        ToolMissingError: crane is not installed.
    """

    def __init__(self, place: Place, tell: Tell = lambda _text: None) -> None:
        self._place = place
        self._tell = tell
        self._crane = locate("crane").executables["crane"]

    def push(self, store: Store, name: str, built: Built) -> bool:
        """Push one image; False: it was there.

        Raises:
            ImageError: the registry is away, refuses us, breaks off, or reports another digest.
        """
        reference = f"{self._place.repository(name)}:{built.version}"
        if self._digest(reference) == built.digest:
            return False
        with _layout(store, name, built) as folder:
            try:
                pushed = self._run("push", str(folder), reference)
            except CommandFailedError as error:
                raise ImageError(self._told(reference, str(error))) from error
        if pushed.rpartition("@")[2] != built.digest:
            raise ImageError(
                f"the registry {self._place.host} reports {pushed} for {reference}, but {built.digest} was pushed: "
                "a proxy in between may have changed it"
            )
        return True

    def _digest(self, reference: str) -> str | None:
        """What a reference means in the registry; None: nothing, or a reason that the push will tell."""
        try:
            return self._run("digest", reference)
        except CommandFailedError:
            return None

    def _run(self, *words: str) -> str:
        return run([self._crane, *words], on_line=lambda line: self._tell(_TIME.sub("", line))).strip()

    def _told(self, reference: str, said: str) -> str:
        """An error of crane's for a user, with what to do."""
        lines = [line.removeprefix(_ERROR) for line in said.splitlines() if line.startswith(_ERROR)]
        reason = lines[-1] if lines else said
        remedy = (
            f": `docker login {self._place.host}` with a user who may push there"
            if _REFUSED.search(reason)
            else ""
        )
        return f"the registry {self._place.host} does not take {reference}: {reason}{remedy}"


@contextmanager
def _layout(store: Store, name: str, built: Built) -> Iterator[Path]:
    """An OCI image layout of one image alone, as crane takes it; its blobs are those of the store."""
    with tempfile.TemporaryDirectory(prefix="marketlake-push-") as made:
        folder = Path(made)
        (folder / "blobs").symlink_to(store.layout / "blobs")
        store.write_layout(folder, {name: built})
        yield folder
