"""Checks of this machine's capacity against what a stack needs, before anything starts."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from stacks.settings.environment import EnvironmentSettings

_CPUS = 2
_STORES = 3
_TELEMETRY = _STORES + 1
"""The stores of metrics, logs and traces, and the collector."""
_ROOM_TO_RUN_MIB = 512
"""Free disk without which a stack that is already set up is not started: logs and write-ahead logs need
room."""
_MIB = 1024 * 1024


class CapacityError(Exception):
    """There is less than the stack needs; the message says of what, how much, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a stack needs: CPUs, MiB of memory and of disk."""

    cpus: int
    memory_mib: int
    disk_mib: int
    cpu_millis: int = 0
    """Thousandths of a core that its services ask a cluster to set aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine has."""

    cpus: int
    memory_mib: int
    memory_available_mib: int
    disk_free_mib: int

    @classmethod
    def this(cls, folder: Path) -> "Machine":
        """This machine, with the free space of the disk that `folder` lies, or will lie, on."""
        memory = psutil.virtual_memory()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        return cls(
            cpus=os.cpu_count() or 1,
            memory_mib=memory.total // _MIB,
            memory_available_mib=memory.available // _MIB,
            disk_free_mib=psutil.disk_usage(str(there)).free // _MIB,
        )


def requirements_of(settings: EnvironmentSettings, *, is_new: bool) -> Requirements:
    """Return what the stack of these settings needs.

    Args:
        settings: the environment's settings.
        is_new: nothing of it is on the disk yet, so room for all its data is needed.
    """
    servers = [
        section
        for section in (settings.database, settings.object_store, settings.event_bus)
        if section.external is None
    ]
    engine, collection, telemetry = settings.workflow_engine, settings.collection, settings.telemetry
    memory = (
        sum(server.memory for server in servers)
        + engine.memory
        + engine.worker_memory
        + collection.workers * collection.memory
        + _TELEMETRY * telemetry.memory
    )
    cpu = (
        sum(server.cpu for server in servers)
        + engine.cpu
        + engine.worker_cpu
        + collection.workers * collection.cpu
        + _TELEMETRY * telemetry.cpu
    )
    disk = sum(server.disk for server in servers) + _STORES * telemetry.disk
    return Requirements(
        cpus=_CPUS,
        memory_mib=memory,
        disk_mib=disk if is_new else _ROOM_TO_RUN_MIB,
        cpu_millis=cpu,
    )


def check_machine(required: Requirements, machine: Machine, folder: Path) -> list[str]:
    """Raise if the machine is too small; return warnings of what is scarce.

    Raises:
        CapacityError: the message lists everything that is missing.
    """
    missing = []
    if machine.disk_free_mib < required.disk_mib:
        missing.append(
            f"disk: {machine.disk_free_mib} MiB are free at {folder}, {required.disk_mib} MiB are needed. Free "
            "some, move the stack to another disk with marketlake:dataFolder, or lower the `disk` settings"
        )
    if machine.memory_mib < required.memory_mib:
        missing.append(
            f"memory: the machine has {machine.memory_mib} MiB, the services are given {required.memory_mib} "
            "MiB. Lower the `memory` settings or marketlake:collection.workers"
        )
    if missing:
        lines = "".join(f"\n  {line}" for line in missing)
        raise CapacityError(
            f"This machine is too small for the stack:{lines}\nAll settings: docs/reference/settings.md"
        )
    warnings = []
    if machine.memory_available_mib < required.memory_mib:
        warnings.append(
            f"{machine.memory_available_mib} MiB of memory are free; under load the services may take "
            f"{required.memory_mib} MiB"
        )
    if machine.cpus < required.cpus:
        warnings.append(
            f"the machine has {machine.cpus} CPU, {required.cpus} are expected: starting will take long"
        )
    return warnings
