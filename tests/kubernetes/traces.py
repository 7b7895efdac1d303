"""Everything by which a node could be noticed on a machine that is none any more."""

import json
import shutil
import subprocess
from pathlib import Path

import psutil

from components.supervision.layout import STACK_MARK

_FOLDERS = ("/etc", "/opt", "/run", "/usr/libexec", "/usr/local", "/var/lib", "/var/log")
_SETTINGS = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")
_OF_UTIL_LINUX = "/run/mount"
"""Made by any `umount`."""


def traces() -> set[str]:
    """Processes, mounts, links, addresses, routes, rules, sets, settings, groups, packages, files: a line each."""
    found = {
        f"process {process.info['name']}"
        for process in psutil.process_iter(["name"])
        if (process.info["name"] or "").startswith(("kube", "etcd", "containerd", "supervisord"))
        and not _is_of_a_stack(process)
    }
    found |= {f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    for link in json.loads(_said("ip", "-json", "address") or "[]"):
        found.add(f"link {link['ifname']}")
        found |= {f"address {each['local']}" for each in link["addr_info"] if "local" in each}
    found |= {f"route {line.strip()}" for line in _said("ip", "-4", "route", "show").splitlines()}
    found |= {f"rule {line.strip()}" for line in _said("nft", "list", "ruleset").splitlines()}
    found |= {f"set {name}" for name in _said("ipset", "list", "-name").split()}
    for name in _SETTINGS:
        file = Path("/proc/sys") / name
        found.add(f"setting {name} = {file.read_text().strip() if file.exists() else None}")
    found |= {f"group {path}" for path in Path("/sys/fs/cgroup").glob("**/kubepods*")}
    found |= {
        f"package {name}"
        for name in _said("dpkg-query", "--show", "--showformat", "${binary:Package} ").split()
    }
    found |= {
        f"file {path}"
        for folder in _FOLDERS
        if Path(folder).is_dir()
        for path in Path(folder).iterdir()
        if str(path) != _OF_UTIL_LINUX
    }
    return found


def _is_of_a_stack(process: psutil.Process) -> bool:
    """Whether a stack on this machine runs it: tests of those may run beside."""
    try:
        return STACK_MARK in process.environ()
    except psutil.Error:
        return False


def _said(*command: str) -> str:
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
