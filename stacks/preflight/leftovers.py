"""What is left of a stack on this machine after it was destroyed."""

import shutil
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from marketlake.settings import ServiceInfo

from components.external import VERSION as EXTERNAL
from components.supervision.layout import STACK_MARK, StackFolder

_GRACE_S = 10.0


def processes(folder: Path) -> list[psutil.Process]:
    """Return the processes that carry the mark of the stack in `folder`, as far as this user may see them."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(STACK_MARK) == str(folder)
        except (psutil.Error, OSError):
            continue
        if marked and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def stop_processes(folder: Path, *, grace_s: float = _GRACE_S) -> list[str]:
    """End what still runs of a stack, by force after `grace_s` seconds, and return the command lines."""
    left = processes(folder)
    names = [_name(process) for process in left]
    for process in left:
        _ignoring_gone(process.terminate)
    _, stubborn = psutil.wait_procs(left, timeout=grace_s)
    for process in stubborn:
        _ignoring_gone(process.kill)
    psutil.wait_procs(stubborn, timeout=grace_s)
    return names


def addresses(services: Iterable[ServiceInfo]) -> list[tuple[str, int]]:
    """Return host and port of every address that the services were known by; external ones are left out."""
    own = [service for service in services if service.version != EXTERNAL]
    texts = [text for service in own for text in (service.address, service.console, service.target) if text]
    parts = [urlsplit(text if "://" in text else f"tcp://{text}") for text in texts]
    return sorted({(part.hostname, part.port) for part in parts if part.hostname and part.port})


def listening(candidates: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return those of the addresses where something still answers."""
    return [address for address in candidates if _answers(address)]


def remove_folder(folder: Path, *, keep_data: bool) -> list[Path]:
    """Remove a stack's folder. Only what a stack puts there goes: unknown files are left and returned.

    Args:
        folder: the stack's data folder; it may be gone already.
        keep_data: leave the volumes.
    """
    if not folder.is_dir():
        return []
    stack = StackFolder(folder)
    own = {stack.supervisor, stack.logs, stack.services, stack.tools, stack.reservations, stack.data}
    own |= {folder / "platform.json", *folder.glob(".*.part")}
    kept = {stack.data} if keep_data else set()
    for path in own - kept:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    unknown = sorted(set(folder.iterdir()) - kept)
    if not unknown and not (keep_data and stack.data.exists()):
        folder.rmdir()
    return unknown


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:120] or process.name()
    except psutil.Error:
        return f"process {process.pid}"


def _ignoring_gone(action: Callable[[], None]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return
