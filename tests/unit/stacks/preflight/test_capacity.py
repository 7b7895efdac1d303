from pathlib import Path

import pytest

from stacks.preflight.capacity import CapacityError, Machine, check_machine, requirements_of
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.validation import settings_from

FOLDER = Path("/srv/marketlake/local")
AMPLE = Machine(cpus=8, memory_mib=64_000, memory_available_mib=64_000, disk_free_mib=500_000)


def test_what_is_needed_follows_from_the_settings() -> None:
    few = requirements_of(
        settings_from({"collection": {"workers": 1, "memory": 300}}, source="t"), is_new=True
    )
    many = requirements_of(
        settings_from({"collection": {"workers": 4, "memory": 300}}, source="t"), is_new=True
    )
    assert many.memory_mib - few.memory_mib == 900
    big = requirements_of(settings_from({"objectStore": {"disk": 100_000}}, source="t"), is_new=True)
    assert big.disk_mib > 100_000


def test_a_stack_that_is_set_up_already_needs_no_room_for_its_data_again() -> None:
    settings = EnvironmentSettings()
    assert requirements_of(settings, is_new=False).disk_mib < requirements_of(settings, is_new=True).disk_mib


def test_an_ample_machine_gives_no_warning() -> None:
    assert check_machine(requirements_of(EnvironmentSettings(), is_new=True), AMPLE, FOLDER) == []


def test_too_small_a_machine_is_told_with_figures_and_remedies() -> None:
    small = Machine(cpus=8, memory_mib=1000, memory_available_mib=900, disk_free_mib=100)
    needs = requirements_of(EnvironmentSettings(), is_new=True)
    with pytest.raises(CapacityError) as caught:
        check_machine(needs, small, FOLDER)
    text = str(caught.value)
    assert f"disk: 100 MiB are free at {FOLDER}, {needs.disk_mib} MiB are needed" in text
    assert f"memory: the machine has 1000 MiB, the services are given {needs.memory_mib} MiB" in text
    assert "marketlake:dataFolder" in text
    assert "marketlake:collection.workers" in text


def test_what_is_scarce_but_may_do_is_a_warning() -> None:
    busy = Machine(cpus=1, memory_mib=64_000, memory_available_mib=500, disk_free_mib=500_000)
    warnings = check_machine(requirements_of(EnvironmentSettings(), is_new=True), busy, FOLDER)
    assert len(warnings) == 2
    assert "500 MiB of memory are free" in warnings[0]
    assert "1 CPU" in warnings[1]


def test_this_machine_is_measured_on_the_disk_that_the_folder_will_lie_on(tmp_path: Path) -> None:
    machine = Machine.this(tmp_path / "not" / "there" / "yet")
    assert machine.cpus >= 1
    assert 0 < machine.memory_available_mib <= machine.memory_mib
    assert machine.disk_free_mib > 0
