"""Ansible module: programs that the distribution's packages bring.

Asked for by program, not by package, so that another vendor's containerd is taken as it is. Which packages came
is written down, dependencies included, so that they can go again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from playbooks.record import read_record, write_record

MARK = "MARKETLAKE_PLAYBOOK"
_BEFORE = "packages_before"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class PackageError(Exception):
    """Packages cannot be installed or removed; the message holds apt's own words."""


def missing_from(wanted: dict[str, list[str]]) -> list[str]:
    """Return the packages with a missing program; programs are names on PATH or absolute paths."""
    return [
        package
        for package, programs in wanted.items()
        if not all(shutil.which(program, path=PATH) for program in programs)
    ]


def apt(*arguments: str) -> None:
    """Run apt-get without questions.

    Raises:
        PackageError: it failed.
    """
    said = subprocess.run(
        ["apt-get", "--quiet", "--yes", "-o", "DPkg::Lock::Timeout=120", *arguments],
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if said.returncode:
        last = "\n".join(said.stdout.strip().splitlines()[-6:])
        raise PackageError(f"`apt-get {' '.join(arguments)}` failed:\n{last}")


def mend() -> None:
    """Repair half-installed packages after a killed apt or a power cut."""
    subprocess.run(["dpkg", "--configure", "-a"], env=_environment(), capture_output=True, check=False)


def _environment() -> dict[str, str]:
    """The user's own, with proxies and the like; not the mark by which a later run ends what is left of this one."""
    kept = {name: value for name, value in os.environ.items() if name != MARK}
    return {**kept, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def installed() -> set[str]:
    """Names of the packages that are installed."""
    said = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${binary:Package}\n"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows = (line.split() for line in said.stdout.splitlines())
    return {row[-1] for row in rows if row[0].startswith("ii")}


def ensure(record_file: Path, wanted: dict[str, list[str]]) -> list[str]:
    """Install the missing packages.

    Returns:
        The packages that were asked for.

    Raises:
        PackageError: apt cannot.
    """
    record = read_record(record_file)
    missing = missing_from(wanted)
    if not missing and _BEFORE not in record:
        return []
    before = set(record.setdefault(_BEFORE, sorted(installed())))  # a killed run's count is continued
    write_record(record_file, record)
    try:
        apt("install", "--no-install-recommends", *missing)
    except PackageError:
        mend()
        apt("update")
        apt("install", "--no-install-recommends", *missing)
    record["packages"] = sorted({*record.get("packages", []), *(installed() - before)})
    del record[_BEFORE]
    write_record(record_file, record)
    if still := missing_from(wanted):
        programs = ", ".join(program for package in still for program in wanted[package])
        raise PackageError(f"after installing {', '.join(still)}, not all of {programs} are there")
    return missing


def remove(record_file: Path) -> list[str]:
    """Remove the packages that `ensure` brought.

    Returns:
        Their names.
    """
    record = read_record(record_file)
    came = set(record.get("packages", []))
    if _BEFORE in record:  # killed while apt was at work
        came |= installed() - set(record[_BEFORE])
    ours = sorted(came & installed()) if came else []
    if ours:
        apt("purge", *ours)
    return ours


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        {
            "state": {"choices": ["present", "absent"], "default": "present"},
            "record": {"type": "path", "required": True},
            "wanted": {"type": "dict", "default": {}},
        }
    )
    asked: dict[str, Any] = module.params
    record = Path(asked["record"])
    try:
        changed = remove(record) if asked["state"] == "absent" else ensure(record, asked["wanted"])
    except (OSError, PackageError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(changed), packages=changed)


if __name__ == "__main__":
    main()
