"""A distribution of a few packages, given by programs that are called as apt-get and uv are."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

APT = """#!{python}
import json, pathlib, shutil, sys
world = json.loads(pathlib.Path({world!r}).read_text())
words = sys.argv[1:]
options = [words[at + 1] for at, word in enumerate(words) if word == "-o"]
lists = pathlib.Path(next(each.split("=", 1)[1] for each in options if each.startswith("Dir::State::lists")))
with open({asked!r}, "a") as log:
    print(*[word for word in words if word in ("update", "install", "download")], file=log)
if "update" in words:
    if world["away"]:
        sys.exit("E: no source answers")
    (lists / "test_Packages").touch()
    sys.exit(100 if world["partly_away"] else 0)
if "install" in words:
    for name in words[words.index("install") + 1:]:
        if name not in world["packages"]:
            sys.exit("E: Unable to locate package " + name)
        for needed in [name, *world["packages"][name]["needs"]]:
            told = world["packages"][needed]
            print("'http://test/" + told["file"] + "'", told["file"], 1, "SHA256:" + told["sha256"])
if "download" in words:
    for wanted in words[words.index("download") + 1:]:
        told = world["packages"][wanted.split("=")[0]]
        if world["gone"]:
            sys.exit("E: 404 Not Found")
        shutil.copy(pathlib.Path({debs!r}) / told["file"], told["file"])
"""
UV = """#!{python}
import pathlib, sys, zipfile
words = sys.argv[1:]
with open({asked!r}, "a") as log:
    print("uv", *words, file=log)
if pathlib.Path({refuses!r}).exists():
    sys.exit("error: no such version")
if words[0] == "export":
    print(pathlib.Path({requirements!r}).read_text())
elif words[0] == "build":
    out = pathlib.Path(words[words.index("--out-dir") + 1])
    out.mkdir()
    (out / "marketlake-0.1.0-py3-none-any.whl").touch()
else:
    site = pathlib.Path(words[words.index("--target") + 1])
    own = words[-1].endswith(".whl")
    (site / "bin").mkdir()
    (site / "bin" / "script").write_text("#!" + sys.executable)
    (site / ".lock").touch()
    brought = [("marketlake", "marketlake.cli:main")] if own else [("prefect", "prefect.cli:app"), ("other", None)]
    for name, entry in brought:
        info = site / (name + "-0.1.0.dist-info")
        info.mkdir()
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("name = " + repr(name))
        (site / name / "tests").mkdir()
        (site / name / "tests" / "test_it.py").touch()
        (site / name / "fast.pyx").touch()
        if not own:
            (site / "README.md").write_text(name)
        (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: " + name + "\\nVersion: 0.1.0\\n")
        (info / "direct_url.json").write_text(str(site))
        if entry:
            (info / "entry_points.txt").write_text("[console_scripts]\\n" + name + " = " + entry + "\\n")
        rows = [name + "/__init__.py,sha256=a,1", name + "/tests/test_it.py,,", "../../bin/script,sha256=b,1",
                "README.md,sha256=" + name + ",1", info.name + "/direct_url.json,,", info.name + "/RECORD,,"]
        (info / "RECORD").write_text("\\n".join(rows) + "\\n")
"""
BUSYBOX = b"#!/bin/sh\necho busybox\necho sh\necho rm\n"


@dataclass
class Distribution:
    """What the programs give, and what they were asked."""

    folder: Path
    packages: dict[str, dict[str, object]] = field(default_factory=dict)
    away: bool = False
    partly_away: bool = False
    gone: bool = False

    def __post_init__(self) -> None:
        for name in ("bin", "debs"):
            (self.folder / name).mkdir(parents=True)
        self.requirements = "prefect==0.1.0\n"
        self._program("apt-get", APT)
        self._program("uv", UV)
        self._tell()

    @property
    def asked(self) -> list[str]:
        """The commands so far."""
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def requirements(self) -> str:
        """What `uv export` prints."""
        return (self.folder / "requirements").read_text()

    @requirements.setter
    def requirements(self, text: str) -> None:
        (self.folder / "requirements").write_text(text)

    def set(self, **facts: bool) -> None:
        """Change away, partly_away or gone."""
        for name, value in facts.items():
            setattr(self, name, value)
        self._tell()

    def add(
        self, name: str, files: dict[str, bytes | str], *, version: str = "1.0", needs: tuple[str, ...] = ()
    ) -> None:
        """A package; a text among the files is the target of a symbolic link, ``=path`` of a hard one."""
        root = self.folder / "roots" / f"{name}-{len(self.packages)}-{version}"
        for path, content in files.items():
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                place.write_bytes(content)
                place.chmod(0o755 if "bin/" in path or "ld-linux" in path else 0o644)
            elif content.startswith("="):
                place.hardlink_to(root / content[1:])
            else:
                place.symlink_to(content)
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: T <t@t.test>\nDescription: t\n"
        )
        file = f"{name}_{version}_all.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", root, self.folder / "debs" / file],
            check=True,
            capture_output=True,
        )
        digest = hashlib.sha256((self.folder / "debs" / file).read_bytes()).hexdigest()
        self.packages[name] = {"file": file, "sha256": digest, "needs": needs}
        self._tell()

    def _program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(
            text.format(
                python=sys.executable,
                **{
                    each: str(self.folder / each)
                    for each in ("world", "asked", "debs", "requirements", "refuses")
                },
            )
        )
        path.chmod(0o755)

    def _tell(self) -> None:
        facts = {
            "packages": self.packages, "away": self.away, "partly_away": self.partly_away, "gone": self.gone,
        }  # fmt: skip
        (self.folder / "world").write_text(json.dumps(facts))


def fill(distribution: Distribution) -> None:
    """The packages that the bases are made of; its loader starts the Python of these tests."""
    loader = f'#!/bin/sh\nshift 3\nexec env -u PYTHONHOME {sys.executable} "$@"\n'
    distribution.add(
        "libc6",
        {
            "lib/x86_64-linux-gnu/libc.so.6": b"libc",
            "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": loader.encode(),
            "usr/share/doc/libc6/copyright": b"GPL",
            "usr/share/doc/libc6/changelog.gz": b"long",
            "usr/share/man/man1/libc.1": b"a manual",
            "usr/lib/x86_64-linux-gnu/gconv/X.so": b"a converter",
        },
    )
    for name in ("libc-bin", "libgcc-s1", "libstdc++6", "zlib1g", "tzdata"):
        distribution.add(name, {f"usr/share/{name}/data": name.encode()})
    distribution.add("busybox-static", {"bin/busybox": BUSYBOX}, version="1:1.35.0-4")
    tag = f"{sys.version_info.major}.{sys.version_info.minor}"
    distribution.add(
        f"python{tag}",
        {
            f"usr/bin/python{tag}": b"ELF",
            f"usr/bin/alias{tag}": f"=usr/bin/python{tag}",
            f"usr/lib/python{tag}/module.py": b"words = {'one', 'two', 'three'}\n",
        },
        version=f"{tag}.2-6+deb12u9",
    )
    distribution.add("python3", {"usr/bin/python3": f"python{tag}"}, needs=(f"python{tag}",))


def on_path(distribution: Distribution) -> str:
    """A PATH on which its programs come first."""
    return f"{distribution.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
