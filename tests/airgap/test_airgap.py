"""`make up` where no registry answers: all comes from a mirror, and nothing is left after `make down`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
HELD = (
    "import fcntl, socket, struct, sys, time; "
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH14x', b'lo', 0x41)); "  # SIOCSIFFLAGS: up, running
    "print('up', flush=True); sys.stdin.read()"
)
"""Brings loopback up, and holds the network until its standard input ends."""

pytestmark = pytest.mark.timeout(900)


@dataclass
class ClosedPlace:
    """A clean checkout with an empty home, in a network that consists of loopback."""

    home: Path
    mirror: Path
    network: str

    @property
    def checkout(self) -> Path:
        return self.home / "checkout"

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            ["nsenter", f"--net={self.network}", *command],
            cwd=self.checkout,
            env={
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "HOME": str(self.home),
                "MARKETLAKE_HOME": str(self.home / "data"),
                "MARKETLAKE_CACHE": str(self.home / "cache"),
                "MARKETLAKE_TOOL_MIRROR": str(self.mirror),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def make(self, target: str, *, check: bool = True) -> str:
        return self.run("make", target, f"PYTHON={Path(sys.base_prefix, 'bin', PYTHON)}", check=check)

    def receipts(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.home / "cache/tools").glob("*/*/receipt.json")]

    def processes(self) -> list[psutil.Process]:
        """Those that live in the network, but the one that holds it."""
        network = Path(self.network)
        inode = network.stat().st_ino
        found = []
        for process in psutil.process_iter():
            own = Path(f"/proc/{process.pid}/ns/net")
            with suppress(OSError):  # it has ended
                if own != network and own.stat().st_ino == inode:
                    found.append(process)
        return found


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    """The file of a network in which nothing but loopback is."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("a network without registries is made with unshare and nsenter, by root")
    with subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", HELD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        if holder.stdout is None or holder.stdout.readline() != "up\n":
            _, said = holder.communicate()
            pytest.skip(f"this machine lets nobody make a network: {said.strip()}")
        yield f"/proc/{holder.pid}/ns/net"
        holder.communicate()


@pytest.fixture(scope="module")
def place(network: str) -> Iterator[ClosedPlace]:
    """Short, for a UNIX socket lies below it, and open to PostgreSQL's account, which is not root."""
    home = Path(tempfile.mkdtemp(prefix="mla-"))
    home.chmod(0o711)
    closed = ClosedPlace(home, home / "mirror", network)
    try:
        subprocess.run([sys.executable, "-m", "toolchain", "mirror", closed.mirror], cwd=PROJECT, check=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.split("\0"):
            if name and os.path.lexists(
                PROJECT / name
            ):  # one that was deleted is still listed until that is committed
                (closed.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, closed.checkout / name, follow_symlinks=False)
        yield closed
    finally:
        if closed.processes():
            closed.make("down", check=False)
        for process in closed.processes():
            process.kill()
        shutil.rmtree(home, ignore_errors=True)


def test_the_platform_comes_up_collects_and_leaves_nothing(place: ClosedPlace) -> None:
    place.make("up")
    receipts = place.receipts()
    assert len(receipts) >= 10
    assert [each["name"] for each in receipts if not each.get("mirror")] == [], "these came from elsewhere"
    assert not (place.home / "cache/go").exists(), "nothing was compiled"

    rows = "select count(distinct open_time) as n from silver.candles where interval = '1m'"
    assert json.loads(place.run(".venv/bin/marketlake", "--env", "local", "sql", rows, "--json")) == [
        {"n": 2880}
    ]
    assert "database" in place.make("status")

    place.make("down")
    assert place.processes() == []
    assert not (place.home / "data/local").exists()
