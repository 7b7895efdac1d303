"""Seeded breakages: patches that each break one promise of the platform, and the test that notices."""

import re
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).parent
CHECKOUT = FOLDER.parents[1]
_NAME = re.compile(r"(\d\d)-[a-z0-9]+(-[a-z0-9]+)*\.patch")
_HEADER = re.compile(r"Promise: (?P<promise>\S.*)\nRed: (?P<red>tests/\S.*)\n\n?(?=diff --git )")


class PatchError(Exception):
    """A file is no breakage, or it does not apply; the message says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakage:
    """A patch that breaks one promise."""

    path: Path
    promise: str
    """One sentence."""
    red: str
    """The pytest target that fails once the patch is applied: a file or a node id."""

    @property
    def number(self) -> str:
        """Two digits: the name by which it is chosen."""
        return self.path.name[:2]

    @property
    def test_file(self) -> str:
        """The file of `red`, below the checkout."""
        return self.red.partition("::")[0]

    def apply(self, tree: Path, *, check_only: bool = False) -> None:
        """Apply the patch to a tree, or only find out whether it applies.

        Raises:
            PatchError: it does not apply; the tree is as it was.
        """
        # Inside of another repository, git would take the tree for a part of it and pass over every file.
        command = ["env", f"GIT_CEILING_DIRECTORIES={tree.resolve().parent}", "git", "apply"]
        command += ["--check"] if check_only else []
        said = subprocess.run(
            [*command, str(self.path)], cwd=tree, capture_output=True, text=True, check=False
        )
        if said.returncode:
            raise PatchError(f"{self.path.name} does not apply:\n{said.stderr.strip()}")


def read(path: Path) -> Breakage:
    """Return the breakage in a file.

    Raises:
        PatchError: its name or its header is not as it has to be.
    """
    if not _NAME.fullmatch(path.name):
        raise PatchError(f"{path.name}: the name has to be NN-the-promise-in-words.patch")
    header = _HEADER.match(path.read_text())
    if header is None:
        raise PatchError(
            f"{path.name}: it has to begin with the lines 'Promise: <one sentence>' and "
            "'Red: <pytest target below tests/>', followed by the diff as `git diff` writes it"
        )
    return Breakage(path=path, promise=header["promise"], red=header["red"])


def read_all(folder: Path = FOLDER) -> list[Breakage]:
    """Return the breakages of a folder in the order of their numbers.

    Raises:
        PatchError: one is not as it has to be, or two have the same number.
    """
    found = [read(path) for path in sorted(folder.glob("*.patch"))]
    for former, one in pairwise(found):
        if former.number == one.number:
            raise PatchError(f"{former.path.name} and {one.path.name} have the same number")
    return found
