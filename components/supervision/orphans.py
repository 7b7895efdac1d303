"""Orphans: processes of a stack that a killed supervisor or a killed `pulumi up` left."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from components.supervision.layout import SERVICE_MARK, STACK_MARK


def processes_of(folder: Path, service: str | None = None) -> list[psutil.Process]:
    """Processes of the stack in `folder` that this user can see, by the mark in their environment.

    Args:
        folder: the stack's folder.
        service: only those of this service; None: all, the supervisor included.
    """
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
            continue
        if environment.get(STACK_MARK) != str(folder):
            continue
        if service is None or environment.get(SERVICE_MARK) == service:
            found.append(process)
    return found


def end(processes: Sequence[psutil.Process], *, grace_s: float = 10.0) -> None:
    """Terminate processes and their children, and kill those that still run after `grace_s` seconds."""
    everyone = {process.pid: process for process in processes}
    for process in processes:
        everyone |= {child.pid: child for child in _children(process)}
    alive = list(everyone.values())
    for process in alive:
        _signal(process, force=False)
    _, alive = psutil.wait_procs(alive, timeout=grace_s)
    for process in alive:
        _signal(process, force=True)
    psutil.wait_procs(alive, timeout=grace_s)


def _children(process: psutil.Process) -> Iterable[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return ()


def _signal(process: psutil.Process, *, force: bool) -> None:
    try:
        if force:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        pass
