"""Ansible module: the node's own address, kernel settings and masquerading of pods.

What a setting was before is written down the first time, so that it can be put back.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from playbooks.record import read_record, write_record

TABLE = "marketlake-cluster"


class NetworkError(Exception):
    """The kernel refuses a setting; the message says which."""


def run(*command: str, stdin: str | None = None) -> str:
    """Return what a command printed.

    Raises:
        NetworkError: it failed.
    """
    said = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if said.returncode:
        raise NetworkError(f"`{' '.join(command)}` failed: {said.stderr.strip() or said.stdout.strip()}")
    return said.stdout


def setting(name: str) -> Path:
    """The file of a kernel setting such as ``net.ipv4.ip_forward``."""
    return Path("/proc/sys") / name.replace(".", "/")


def ensure_settings(wanted: dict[str, str], recorded: dict[str, str]) -> list[str]:
    """Set kernel settings, and record the former ones in `recorded`.

    Returns:
        The names of those that changed.
    """
    if shutil.which("modprobe"):
        for module in ("overlay", "br_netfilter"):
            subprocess.run(["modprobe", module], capture_output=True, check=False)  # it may be built in
    changed = []
    for name, value in wanted.items():
        file = setting(name)
        try:
            found = file.read_text().strip()
        except OSError as error:
            raise NetworkError(f"the kernel has no setting {name} ({error.strerror}); it needs it") from error
        if found != str(value):
            recorded.setdefault(name, found)
            file.write_text(str(value))
            changed.append(name)
    return changed


def addresses() -> set[str]:
    """Every IPv4 address of this machine."""
    links: list[dict[str, Any]] = json.loads(run("ip", "-json", "-4", "address"))
    return {each["local"] for link in links for each in link["addr_info"]}


def masquerading(pods: str) -> str:
    """Rules by which what pods send out of the node carries the node's address."""
    return (
        f"table ip {TABLE} {{\n"
        "\tchain postrouting {\n"
        "\t\ttype nat hook postrouting priority srcnat; policy accept;\n"
        f"\t\tip saddr {pods} ip daddr != {pods} masquerade\n"
        "\t}\n"
        "}\n"
    )


def ensure_masquerading(pods: str) -> bool:
    """Write the rules into the kernel, and return whether they were missing."""
    wanted = masquerading(pods)
    listed = subprocess.run(
        ["nft", "list", "table", "ip", TABLE], capture_output=True, text=True, check=False
    )
    if listed.stdout == wanted:
        return False
    run("nft", "-f", "-", stdin=f"table ip {TABLE}\ndelete table ip {TABLE}\n{wanted}")
    return True


def ensure_route(services: str, address: str) -> bool:
    """Add a route to Services where the machine has no default route, and return whether it was missing."""
    if run("ip", "route", "show", services).strip():
        return False
    run("ip", "route", "add", services, "dev", "lo", "src", address)
    return True


def tables() -> list[str]:
    """Names of the tables that the packet filter has, e.g. ``ip nat``."""
    return [line.removeprefix("table ").strip() for line in run("nft", "list", "tables").splitlines()]


def ensure(
    record_file: Path,
    *,
    address: str,
    pods: str,
    services: str,
    settings: dict[str, str],
    shared: list[str],
) -> list[str]:
    """Bring all of it about.

    Args:
        record_file: where what was before is written down.
        address: the node's.
        pods: the block of all pods' addresses.
        services: the block of all Services' addresses.
        settings: of the kernel.
        shared: folders that the node's programs make unless they exist already.

    Returns:
        What changed, in words.
    """
    record = read_record(record_file)
    if "tables" not in record:
        record["tables"] = tables()
        record["paths"] = [path for path in shared if Path(path).exists()]
        write_record(record_file, record)
    record["services"] = services
    recorded = record.setdefault("settings", {})
    for name, value in settings.items():  # first on disk: a killed run must not forget what it changed
        if name not in recorded and setting(name).exists():
            found = setting(name).read_text().strip()
            if found != str(value):
                recorded[name] = found
    write_record(record_file, record)
    changed = ensure_settings(settings, recorded)
    former = record.get("address", address)
    if former != address and former in addresses():
        run("ip", "address", "delete", f"{former}/32", "dev", "lo")
        changed.append(former)
    if address not in addresses():
        record["address"] = address
        write_record(record_file, record)
        run("ip", "address", "add", f"{address}/32", "dev", "lo")
        changed.append(address)
    if ensure_route(services, address):
        changed.append("route")
    if ensure_masquerading(pods):
        changed.append("masquerading")
    return changed


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        {
            "record": {"type": "path", "required": True},
            "address": {"type": "str", "required": True},
            "pods": {"type": "str", "required": True},
            "services": {"type": "str", "required": True},
            "settings": {"type": "dict", "default": {}},
            "shared": {"type": "list", "elements": "str", "default": []},
        }
    )
    asked = module.params
    try:
        changed = ensure(
            Path(asked["record"]),
            address=asked["address"],
            pods=asked["pods"],
            services=asked["services"],
            settings=asked["settings"],
            shared=asked["shared"],
        )
    except (OSError, NetworkError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(changed), altered=changed)


if __name__ == "__main__":
    main()
