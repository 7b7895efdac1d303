"""Digests of files, and the lists of digests that vendors and mirrors publish."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

_ALGORITHM_BY_LENGTH = {64: "sha256", 128: "sha512"}
_HEX = re.compile(r"[0-9a-fA-F]+")


@dataclass(frozen=True)
class Digest:
    """A cryptographic digest: algorithm and lower-case hex."""

    algorithm: str
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    @classmethod
    def parse(cls, text: str) -> "Digest | None":
        """What a hex string of 64 (sha256) or 128 (sha512) digits stands for; None if it is neither."""
        algorithm = _ALGORITHM_BY_LENGTH.get(len(text))
        return cls(algorithm, text.lower()) if algorithm and _HEX.fullmatch(text) else None


def file_digest(path: Path, algorithm: str = "sha256") -> Digest:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return Digest(algorithm, hashlib.file_digest(file, algorithm).hexdigest())


def find_digest(text: str, file_name: str) -> Digest | None:
    """The digest of `file_name` in a published list of checksums.

    Understands the lines of sha256sum (``HEX  NAME``, also ``HEX *NAME`` and ``HEX  dir/NAME``), a file that
    holds nothing but one digest, and Apache's form (``NAME: 0A1B 2C3D …``, wrapped over several lines).
    """
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 2 and fields[1].lstrip("*").rpartition("/")[2] == file_name:
            return Digest.parse(fields[0])
    if len(fields := text.split()) == 1:
        return Digest.parse(fields[0])
    name, colon, groups = text.partition(":")
    if colon and name.strip() == file_name:
        return Digest.parse("".join(groups.split()))
    return None
