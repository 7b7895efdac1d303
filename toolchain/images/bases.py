"""What lies below the programs of images: users and certificates, libraries, a shell, Python."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import certifi

from toolchain.commands import run
from toolchain.errors import CommandFailedError
from toolchain.images.catalogue import HOME, NOBODY, Base
from toolchain.images.errors import ImageError
from toolchain.images.layer import Member, folder, link, tree
from toolchain.images.packages import Package

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SHELL_PACKAGES = ("busybox-static",)
GLIBC_PACKAGES = ("libc6", "libc-bin", "libgcc-s1", "libstdc++6", "zlib1g", "tzdata", "busybox-static")
"""libc-bin for the locale C.UTF-8, which databases are created with."""
PYTHON_PACKAGES = ("python3", *GLIBC_PACKAGES)
PACKAGES: dict[Base, Sequence[str]] = {
    Base.STATIC: (),
    Base.SHELL: SHELL_PACKAGES,
    Base.GLIBC: GLIBC_PACKAGES,
    Base.PYTHON: PYTHON_PACKAGES,
}
_PYTHON = re.compile(r"python3\.(\d+)")


def foundation() -> dict[str, Member]:
    """What every image has: users, certificates, a folder for what is temporary."""
    users = f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{NOBODY}:{NOBODY}:nonroot:{HOME}:/sbin/nologin\n"
    return {
        "etc/passwd": Member(users.encode()),
        "etc/group": Member(f"root:x:0:\nnonroot:x:{NOBODY}:\n".encode()),
        "etc/nsswitch.conf": Member(b"passwd: files\ngroup: files\nhosts: files dns\n"),
        CERTIFICATES[1:]: Member(Path(certifi.where()).read_bytes()),
        "tmp": folder(0o1777),
        **{mounted: folder() for mounted in ("dev", "proc", "sys")},
    }


def with_shell(members: dict[str, Member], staging: Path) -> dict[str, Member]:
    """The same and a link for every command that busybox knows and nothing else gives.

    Raises:
        ImageError: busybox is not among the members, or does not run here.
    """
    place = next((path for path in ("usr/bin/busybox", "bin/busybox") if path in members), None)
    content = members[place].content if place else None
    if place is None or not isinstance(content, bytes):
        raise ImageError("the distribution's package busybox-static holds no bin/busybox")
    with tempfile.TemporaryDirectory(dir=staging) as held:
        probe = Path(held) / "busybox"
        probe.write_bytes(content)
        probe.chmod(0o755)
        try:
            commands = run([probe, "--list"]).split()
        except CommandFailedError as error:
            raise ImageError(f"the distribution's busybox does not run on this machine: {error}") from error
    links = {f"usr/bin/{command}": link("busybox") for command in commands if command != "busybox"}
    return {**links, **members}


@dataclass(frozen=True)
class Python:
    """The Python of an image."""

    version: str
    """Major and minor, e.g. ``3.11``."""
    full_version: str

    @classmethod
    def among(cls, packages: Sequence[Package]) -> "Python":
        """The one that these packages give.

        Raises:
            ImageError: none of them gives one.
        """
        for package in packages:
            if _PYTHON.fullmatch(package.name):
                return cls(package.name.removeprefix("python"), re.split(r"[-+~]", package.version)[0])
        names = ", ".join(package.name for package in packages)
        raise ImageError(f"the distribution's package python3 brings no python3.X, only {names}")

    def compile(self, root: Path, folders: Sequence[str]) -> None:
        """Compile all modules in `folders` of the image unpacked at `root`, with the image's own Python.

        What is compiled is taken to be right without a look at the source: an image is never changed.

        Raises:
            ImageError: its Python does not run on this machine.
        """
        libraries = [str(path) for path in sorted((root / "usr/lib").glob("*-linux-gnu*"))]
        loader = next(iter(sorted((root / "usr").glob("lib*/**/ld-linux*"))), None)
        if loader is None:
            raise ImageError(f"no dynamic loader lies below {root / 'usr'}: this base cannot run Python")
        command: list[str | Path] = [
            loader,
            "--library-path",
            ":".join(libraries),
            root / f"usr/bin/python{self.version}",
        ]
        command += ["-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        command += ["-s", root, "-p", "/", *[root / each for each in folders]]
        environment = {"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            run(command, env=environment)
        except CommandFailedError as error:
            # It ends so, too, when a library carries a module for another Python, which does not compile.
            if not any(path for each in folders for path in (root / each).rglob("*.pyc")):
                raise ImageError(f"the Python of the image does not run on this machine: {error}") from error


def compiled_python(members: dict[str, Member], python: Python, staging: Path) -> dict[str, Member]:
    """The members of Python's base, with the modules of its standard library compiled."""
    root = Path(tempfile.mkdtemp(dir=staging))
    try:
        unpack(members, root)
        python.compile(root, [f"usr/lib/python{python.version}"])
        caches = {
            path: folder() if member.content is None else Member(Path(root / path).read_bytes())
            for path, member in tree(root / "usr/lib", "usr/lib")
            if path.endswith((".pyc", "/__pycache__"))
        }
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return {**members, **caches}


def unpack(members: dict[str, Member], root: Path) -> None:
    """Write members below a folder."""
    for path in sorted(members):
        member, place = members[path], root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if member.link is not None:
            place.symlink_to(member.link)
        elif member.content is None:
            place.mkdir(exist_ok=True)
        else:
            place.write_bytes(
                member.content if isinstance(member.content, bytes) else member.content.read_bytes()
            )
            place.chmod(member.mode)
