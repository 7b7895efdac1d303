"""Packages come by program, and go again if they came by us."""

import json

import pytest

from playbooks.library import packages
from playbooks.library.packages import PackageError, ensure, remove
from playbooks.record import read_record

DPKG = """
from pathlib import Path
for name in Path({database!r}).read_text().split():
    print("ii ", name)
print("rc ", "left-behind")
"""
APT = """
database = Path({database!r})
known = {known!r}
names = set(database.read_text().split())
verb = next(word for word in arguments if word in ("install", "purge", "update"))
asked = [word for word in arguments[arguments.index(verb) + 1:] if not word.startswith("-")]
if verb == "update":
    Path({updated!r}).touch()
elif verb == "install":
    if {stale} and not Path({updated!r}).exists():
        print("E: Unable to locate package " + asked[0])
        sys.exit(100)
    for name in asked:
        names |= {{name, "lib" + name}}
        for program in known.get(name, []):
            (Path({programs!r}) / program).write_text("#!/bin/sh")
            (Path({programs!r}) / program).chmod(0o755)
else:
    names -= set(asked)
database.write_text(" ".join(sorted(names)))
"""


class Machine:
    """A machine whose packages are a list in a file."""

    def __init__(self, folder, commands) -> None:
        self.record = folder / "data" / "before.json"
        self.programs = folder / "usr"
        self.programs.mkdir()
        self.commands = commands
        self._folder = folder
        self._database = folder / "packages"
        self._database.write_text("bash coreutils")
        commands.add("dpkg-query", DPKG.format(database=str(self._database)))
        self.serve(ipset=["ipset"], nftables=["nft"])

    def serve(self, *, stale: bool = False, **known: list[str]) -> None:
        """Have these packages in the archive; `stale`: known only after an update."""
        text = APT.format(
            database=str(self._database),
            known=known,
            stale=stale,
            updated=str(self._folder / "updated"),
            programs=str(self.programs),
        )
        self.commands.add("apt-get", text)

    @property
    def installed(self) -> set[str]:
        return set(self._database.read_text().split())


@pytest.fixture
def machine(tmp_path, commands, monkeypatch):
    found = Machine(tmp_path, commands)
    monkeypatch.setattr(packages, "PATH", str(found.programs))
    return found


def test_what_lacks_is_installed_and_what_came_is_recorded(machine) -> None:
    assert ensure(machine.record, {"ipset": ["ipset"], "nftables": ["nft"]}) == ["ipset", "nftables"]
    assert read_record(machine.record) == {"packages": ["ipset", "libipset", "libnftables", "nftables"]}


def test_a_program_that_is_there_needs_no_package(machine) -> None:
    (machine.programs / "ipset").write_text("#!/bin/sh")
    (machine.programs / "ipset").chmod(0o755)
    assert ensure(machine.record, {"ipset": ["ipset"]}) == []
    assert machine.commands.calls == []
    assert not machine.record.exists()


def test_old_lists_are_brought_up_to_date(machine) -> None:
    machine.serve(stale=True, ipset=["ipset"])
    assert ensure(machine.record, {"ipset": ["ipset"]}) == ["ipset"]


def test_a_package_that_is_nowhere_is_told_in_apts_words(machine) -> None:
    machine.commands.add("apt-get", "print('E: Unable to locate package ipset'); sys.exit(100)")
    with pytest.raises(PackageError, match="Unable to locate package ipset"):
        ensure(machine.record, {"ipset": ["ipset"]})


def test_a_package_without_its_program_is_no_success(machine) -> None:
    machine.serve(ipset=["another"])
    with pytest.raises(PackageError, match="after installing ipset, not all of ipset are there"):
        ensure(machine.record, {"ipset": ["ipset"]})


def test_only_what_came_by_us_goes_again(machine) -> None:
    ensure(machine.record, {"ipset": ["ipset"]})
    assert remove(machine.record) == ["ipset", "libipset"]
    assert machine.installed == {"bash", "coreutils"}
    assert remove(machine.record) == []


def test_what_came_in_two_runs_goes_in_one(machine) -> None:
    ensure(machine.record, {"ipset": ["ipset"]})
    ensure(machine.record, {"ipset": ["ipset"], "nftables": ["nft"]})
    assert remove(machine.record) == ["ipset", "libipset", "libnftables", "nftables"]


def test_a_run_that_was_killed_while_apt_worked_forgets_nothing(machine) -> None:
    machine.record.parent.mkdir()
    machine.record.write_text(json.dumps({"packages_before": ["bash", "coreutils"]}))
    machine._database.write_text("bash coreutils ipset")
    ensure(machine.record, {"ipset": ["ipset"]})
    assert read_record(machine.record)["packages"] == ["ipset", "libipset"]


def test_and_its_packages_go_without_a_second_run_too(machine) -> None:
    machine.record.parent.mkdir()
    machine.record.write_text(json.dumps({"packages_before": ["bash", "coreutils"]}))
    machine._database.write_text("bash coreutils ipset")
    assert remove(machine.record) == ["ipset"]


def test_ansible_is_told_what_came_and_what_went(machine, ask) -> None:
    there = {"record": str(machine.record), "wanted": {"ipset": ["ipset"]}}
    assert ask(packages, **there)["packages"] == ["ipset"]
    assert ask(packages, **there)["changed"] is False
    gone = {"state": "absent", "record": str(machine.record)}
    assert ask(packages, **gone)["packages"] == ["ipset", "libipset"]
    assert ask(packages, **gone)["changed"] is False


def test_a_failure_of_apt_is_the_steps_message(machine, ask) -> None:
    machine.commands.add("apt-get", "print('E: no network'); sys.exit(100)")
    told = ask(packages, record=str(machine.record), wanted={"ipset": ["ipset"]})
    assert told["failed"] is True
    assert "E: no network" in told["msg"]
