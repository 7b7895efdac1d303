"""The distribution's packages as members of layers: resolved and proven by apt, opened without being installed."""

import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from toolchain.checksums import Digest, file_digest
from toolchain.commands import run
from toolchain.errors import CommandFailedError
from toolchain.images.errors import ImageError
from toolchain.images.layer import Member, folder, link, program

ASSUMED = ("debconf", "dpkg", "usrmerge", "usr-is-merged")
"""Packages that only the scripts of other packages need; these scripts are never run."""
_LEFT_OUT = re.compile(
    r"usr/share/(man|info|locale|lintian|bash-completion|bug|menu|pixmaps|applications|doc-base|binfmts|debconf)/"
    r"|usr/share/doc/[^/]+/(?!copyright$)"
    r"|etc/(init\.d|default|cron\.\w+|logrotate\.d)/"
    r"|usr/lib/(valgrind|systemd)/"
    r"|usr/lib/[^/]+/gconv/|usr/share/zoneinfo/right/|usr/share/python3/"
    r"|usr/s?bin/(iconv|iconvconfig|ldconfig|ldd|localedef|getconf|getent|pldd|tzselect|zdump|zic)$"
    r"|usr/lib/python3[^/]*/(pydoc_data|test|__phello__)/"
)
_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
"""Folders whose place is below /usr in every distribution of today."""
_PLANNED = re.compile(
    r"^'[^']*' (?P<file>(?P<name>[^_\s]+)_(?P<version>[^_\s]+)_(?P<arch>\w+)\.deb) \d+ SHA256:(?P<hex>[0-9a-f]{64})"
)
_SOURCE = "the distribution's packages"


@dataclass(frozen=True)
class Package:
    """A package of the distribution."""

    name: str
    version: str
    architecture: str
    file: str
    """Name of its archive."""
    sha256: str

    @property
    def component(self) -> dict[str, Any]:
        """As a CycloneDX component."""
        return {
            "type": "library",
            "name": self.name,
            "version": self.version,
            "purl": f"pkg:deb/{distribution()[0]}/{self.name}@{self.version}?arch={self.architecture}",
            "hashes": [{"alg": "SHA-256", "content": self.sha256}],
        }


@dataclass(frozen=True)
class Packages:
    """Packages as the machine's apt sources give them; its own packages and lists are left alone."""

    folder: Path
    """For apt's lists and for the archives."""
    step: Callable[[str], None]

    def plan(self, names: Sequence[str]) -> list[Package]:
        """The named packages and all that they depend on, sorted by name.

        Raises:
            ImageError: apt is not there, or does not know them; the message says what it said.
        """
        self._know()
        try:
            said = run(
                [
                    "apt-get",
                    *self._options,
                    "-qq",
                    "--print-uris",
                    "--yes",
                    "--no-install-recommends",
                    "install",
                    *names,
                ]
            )
        except CommandFailedError as error:
            raise ImageError(
                f"{_SOURCE} {', '.join(names)} cannot be had: {error}\nImages with the distribution's libraries "
                "are built on Debian, Ubuntu and their kin; look at the sources of apt, or build elsewhere and "
                "push to a registry"
            ) from error
        found = [
            Package(match["name"], unquote(match["version"]), match["arch"], match["file"], match["hex"])
            for match in map(_PLANNED.match, said.splitlines())
            if match
        ]
        if not found:
            raise ImageError(f"apt planned nothing for {', '.join(names)}; it said: {said[-500:]!r}")
        return sorted(found, key=lambda package: package.name)

    def update(self) -> None:
        """Bring the lists of packages up to date."""
        self._prepare()
        self.step("updating the lists of packages")
        try:
            run(["apt-get", *self._options, "-qq", "update"])
        except CommandFailedError as error:
            # One broken source of many does not matter; that a package is unknown does, and is reported by `plan`.
            if not any((self.folder / "lists").glob("*Packages*")):
                raise ImageError(f"the lists of {_SOURCE} cannot be had: {error}") from error

    def fetch(self, packages: Sequence[Package]) -> list[Path]:
        """The archives of packages, downloaded where they are not there yet.

        Raises:
            ImageError: one cannot be downloaded, or is not what the signed lists say.
        """
        missing = [package for package in packages if not self._is_there(package)]
        if missing:
            self._know()  # what was planned may have been remembered elsewhere, or lists and archives deleted since
            self.step(f"downloading {len(missing)} packages")
            wanted = [f"{package.name}={package.version}" for package in missing]
            try:
                run(["apt-get", *self._options, "-qq", "download", *wanted], cwd=self.folder / "archives")
            except CommandFailedError as error:
                raise ImageError(
                    f"{_SOURCE} cannot be downloaded: {error}\nIf they were replaced by newer ones, "
                    "`python -m toolchain.images build --refresh` takes these."
                ) from error
        for package in packages:
            if not self._is_there(package):
                raise ImageError(
                    f"{package.file} did not arrive as apt announced it (sha256 {package.sha256})"
                )
        return [self.folder / "archives" / package.file for package in packages]

    def members(self, packages: Sequence[Package]) -> dict[str, Member]:
        """What the packages hold, without manuals, translations and what a service manager reads."""
        members: dict[str, Member] = {}
        for archive in self.fetch(packages):
            members.update(_opened(archive))
        for name in _MERGED:
            if any(path.startswith(f"usr/{name}/") for path in members):
                members[name] = link(f"usr/{name}")
        return members

    def _know(self) -> None:
        """Bring the lists of packages if there are none."""
        self._prepare()
        if not any((self.folder / "lists").glob("*Packages*")):
            self.update()

    def _is_there(self, package: Package) -> bool:
        path = self.folder / "archives" / package.file
        return path.is_file() and file_digest(path) == Digest("sha256", package.sha256)

    @property
    def _options(self) -> list[str]:
        settings = {
            "Dir::State::status": self.folder / "status",
            "Dir::State::lists": self.folder / "lists",
            "Dir::Cache": self.folder / "cache",
            "Acquire::ForceHash": "SHA256",
            "Acquire::http::Timeout": 20,
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",  # the folder is ours alone, so apt's own user could not write to it
            "Debug::NoLocking": 1,
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _prepare(self) -> None:
        for name in ("lists/partial", "cache/archives/partial", "archives"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").write_text(
            "\n".join(
                f"Package: {name}\nStatus: install ok installed\nVersion: 99:1\nArchitecture: all\n"
                f"Provides: {name}-2.0\nDescription: taken to be there\n"
                for name in ASSUMED
            )
        )


def distribution() -> tuple[str, str]:
    """Identifier and version of the distribution whose packages apt gives, e.g. ``("debian", "12")``."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        lines = []
    told = dict(line.split("=", 1) for line in lines if "=" in line)
    return told.get("ID", "linux").strip('"'), told.get("VERSION_ID", "unknown").strip('"')


def _opened(archive: Path) -> Iterator[tuple[str, Member]]:
    try:
        process = subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise ImageError(f"cannot start dpkg-deb, which opens {_SOURCE}: {error}") from error
    files: dict[str, Member] = {}
    try:
        with process, tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for info in tar:
                path = _merged(info.name)
                member = _member(tar, info, files)
                if info.isreg():
                    files[info.name] = member
                if path != "." and not _LEFT_OUT.match(f"{path}/" if info.isdir() else path):
                    yield path, member
    except tarfile.TarError as error:
        raise ImageError(f"dpkg-deb cannot open {archive}: {error}; delete it and build again") from error
    if process.returncode != 0:
        raise ImageError(f"dpkg-deb ended with {process.returncode} in {archive}: delete it and build again")


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo, files: dict[str, Member]) -> Member:
    if info.issym():
        return link(info.linkname)
    if info.isdir():
        return folder()
    if info.islnk():
        return files[info.linkname]
    content = tar.extractfile(info)
    data = content.read() if content else b""
    return program(data) if info.mode & 0o111 else Member(data)


def _merged(name: str) -> str:
    path = PurePosixPath(name.removeprefix("./"))
    return str("usr" / path) if path.parts and path.parts[0] in _MERGED else str(path)
