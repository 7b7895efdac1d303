"""Ansible module: ends what outlives the daemons of a node, and removes its traces in kernel and file system."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
from ansible.module_utils.basic import AnsibleModule

from playbooks.record import read_record

SHIM = "containerd-shim"
BRIDGE = "cni0"
TABLES = ("ip marketlake-cluster", "ip kube-proxy", "ip6 kube-proxy")
OURS = re.compile(r"(?<![\w-])(KUBE-|CNI-)")
"""How kubelet, kube-proxy, kube-network-policies and the CNI plug-ins name chains."""
_BUILT_IN = {"INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"}
CONTROL_GROUPS = Path("/sys/fs/cgroup")


class RemovalError(Exception):
    """Something cannot be removed; the message says what."""


def run(*command: str, stdin: str | None = None) -> str:
    """Return what a command printed.

    Raises:
        RemovalError: it failed.
    """
    said = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if said.returncode:
        raise RemovalError(f"`{' '.join(command)}` failed: {said.stderr.strip() or said.stdout.strip()}")
    return said.stdout


def end_containers(socket: str) -> bool:
    """End every container of the containerd at `socket`, and the shims that hold them."""
    shims = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if (process.info["name"] or "").startswith(SHIM) and socket in (process.info["cmdline"] or [])
    ]
    for shim in shims:
        try:
            below = shim.children(recursive=True)
        except psutil.NoSuchProcess:
            continue
        for process in [shim, *below]:  # the shim first, or it would tidy up what is removed here
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(below, timeout=10)
    return bool(shims)


def unmount(folders: Iterable[str]) -> bool:
    """Unmount all that lies in these folders, the last mounted first."""
    mounts = [
        line.split()[4].encode().decode("unicode_escape")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    ours = [
        mount for mount in mounts if any(f"{mount}/".startswith(f"{folder}/") for folder in folders)
    ]  # the folder of the kubelet is one itself where mounts are not shared
    for mount in reversed(ours):
        if subprocess.run(["umount", mount], capture_output=True, check=False).returncode:
            run("umount", "--lazy", mount)
    return bool(ours)


def remove_links() -> bool:
    """Remove the bridge, and the pods' veth interfaces in it."""
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        return False
    for link in json.loads(run("ip", "-json", "link", "show", "master", BRIDGE)):
        subprocess.run(["ip", "link", "delete", link["ifname"]], capture_output=True, check=False)
    run("ip", "link", "delete", BRIDGE)
    return True


def without_ours(saved: str) -> str | None:
    """Return what iptables-save printed without our chains and rules; None if there are none."""
    lines = saved.splitlines()
    kept = [line for line in lines if line.startswith("#") or not OURS.search(line)]
    return None if len(kept) == len(lines) else "\n".join(kept) + "\n"


def remove_rules(tables_before: list[str]) -> bool:
    """Remove our tables, chains and rules from the packet filter, and tables that are empty by that."""
    changed = False
    if not shutil.which("nft"):
        return False
    for program in ("iptables", "ip6tables"):
        if shutil.which(f"{program}-save") and (kept := without_ours(run(f"{program}-save"))) is not None:
            run(f"{program}-restore", stdin=kept)
            changed = True
    for table in [line.removeprefix("table ") for line in run("nft", "list", "tables").splitlines()]:
        if table in TABLES or (table not in tables_before and is_empty(table)):
            run("nft", "delete", "table", *table.split())
            changed = True
    return changed


def is_empty(table: str) -> bool:
    """Return whether a table holds only what iptables leaves after its last rule."""
    parts: list[dict[str, Any]] = json.loads(run("nft", "-j", "list", "table", *table.split()))["nftables"]
    chains = [part["chain"]["name"] for part in parts if "chain" in part]
    others = [part for part in parts if not part.keys() & {"metainfo", "table", "chain"}]
    return not others and set(chains) <= _BUILT_IN and table.split(maxsplit=1)[0] in {"ip", "ip6"}


def remove_control_groups(root: Path = CONTROL_GROUPS) -> bool:
    """Remove the control groups of pods, whatever the version and driver."""
    found = [path for pattern in ("kubepods*", "*/kubepods*") for path in root.glob(pattern) if path.is_dir()]
    for top in found:
        for folder, _, _ in os.walk(top, topdown=False):
            _remove_group(Path(folder))
    return bool(found)


def _remove_group(folder: Path) -> None:
    deadline = time.monotonic() + 10  # killed processes leave their group a moment later
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RemovalError(f"the control group {folder} is still in use: {error.strerror}") from error
            time.sleep(0.1)


def restore(record: dict[str, Any]) -> bool:
    """Put addresses, routes and kernel settings back to what they were."""
    changed = False
    address = record.get("address")
    if address and address in run("ip", "-4", "address", "show", "dev", "lo"):
        run("ip", "address", "delete", f"{address}/32", "dev", "lo")
        changed = True
    services = record.get("services")
    if services and run("ip", "route", "show", services).strip():
        run("ip", "route", "delete", services)
        changed = True
    for name, value in record.get("settings", {}).items():
        file = Path("/proc/sys") / name.replace(".", "/")
        if file.exists() and file.read_text().strip() != value:
            file.write_text(value)
            changed = True
    return changed


def remove(record_file: Path, *, socket: str, folders: list[str], unless_before: list[str]) -> list[str]:
    """Remove all of it but what the record itself needs.

    Returns:
        What there was.
    """
    record = read_record(record_file)
    before = record.get("paths", [])
    doomed = [path for path in folders if path != str(record_file.parent)]
    doomed += [path for path in unless_before if path not in before]
    steps: dict[str, Callable[[], bool]] = {
        "containers": lambda: end_containers(socket),
        "mounts": lambda: unmount(folders),
        "links": remove_links,
        "packet filter": lambda: remove_rules(record.get("tables", [])),
        "control groups": remove_control_groups,
        "settings": lambda: restore(record),
        "files": lambda: remove_paths(doomed) | remove_paths(_beside(record_file)),
    }
    return [name for name, step in steps.items() if step()]


def _beside(record_file: Path) -> list[str]:
    if not record_file.parent.is_dir():
        return []
    return [str(path) for path in record_file.parent.iterdir() if path != record_file]


def remove_paths(paths: list[str]) -> bool:
    """Remove folders and files; whether there were any."""
    found = [Path(path) for path in paths if Path(path).exists() or Path(path).is_symlink()]
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return bool(found)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        {
            "record": {"type": "path", "required": True},
            "socket": {"type": "path", "required": True},
            "folders": {"type": "list", "elements": "str", "required": True},
            "unless_before": {"type": "list", "elements": "str", "default": []},
        }
    )
    asked = module.params
    try:
        removed = remove(
            Path(asked["record"]),
            socket=asked["socket"],
            folders=asked["folders"],
            unless_before=asked["unless_before"],
        )
    except (OSError, RemovalError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(removed), removed=removed)


if __name__ == "__main__":
    main()
