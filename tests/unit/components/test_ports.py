"""Numbers of ports: the usual ones, free ones where those are taken, and always the same afterwards."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.providers import ports
from components.providers.base import ResourceError
from components.providers.ports import PortsInputs, PortsProvider
from components.supervision import reservations
from components.supervision.layout import STACK_MARK
from components.supervision.sockets import any_free

RACER = """
import sys
from pathlib import Path
from components.providers.ports import PortsInputs, PortsProvider
from components.supervision import reservations
reservations.register_folder = lambda: Path(sys.argv[1])
for line in sys.stdin:
    folder, usual = line.split()
    declared = PortsInputs(version="1", folder=folder, service="web", preferred={"a": int(usual), "b": int(usual)})
    print(*PortsProvider().apply(declared)["numbers"].values(), flush=True)
    sys.stdin.readline()
    PortsProvider().remove(declared)
    print("removed", flush=True)
"""


@contextmanager
def taken(port: int = 0) -> Iterator[int]:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    warnings: list[str] = []
    monkeypatch.setattr(ports, "warn", warnings.append)
    return warnings


def inputs(folder: Path, **changes: Any) -> PortsInputs:
    fields: dict[str, Any] = {
        "version": "1",
        "folder": str(folder),
        "service": "web",
        "preferred": {"api": any_free()},
    }
    return PortsInputs.model_validate(fields | changes)


def numbers(declared: PortsInputs) -> dict[str, int]:
    found: dict[str, int] = PortsProvider().apply(declared)["numbers"]
    return found


def test_the_usual_number_is_taken_when_it_is_free(folder: Path, said: list[str]) -> None:
    declared = inputs(folder)
    assert numbers(declared) == declared.preferred
    assert said == []
    assert PortsProvider().observe(declared) == {"numbers": declared.preferred}


def test_a_free_one_is_taken_otherwise_and_said_so(folder: Path, said: list[str]) -> None:
    with taken() as busy:
        declared = inputs(folder, preferred={"api": busy})
        number = numbers(declared)["api"]
    assert number != busy
    assert len(said) == 1
    assert f"web: port {busy} (api) is taken by" in said[0]
    assert f"(process {os.getpid()}); {number} is used instead" in said[0]


def test_a_number_stays_even_if_the_usual_one_becomes_free(folder: Path, said: list[str]) -> None:
    with taken() as busy:
        declared = inputs(folder, preferred={"api": busy})
        first = numbers(declared)
    assert numbers(declared) == first


def test_a_number_that_somebody_took_meanwhile_is_given_up(folder: Path, said: list[str]) -> None:
    declared = inputs(folder)
    first = numbers(declared)
    with taken(first["api"]):
        assert PortsProvider().observe(declared) is None
        assert numbers(declared) != first


def test_the_stacks_own_process_on_the_port_is_no_stranger(folder: Path, said: list[str]) -> None:
    declared = inputs(folder, pinned={})
    port = numbers(declared)["api"]
    listen = (
        f"import socket; s = socket.socket(); s.bind(('127.0.0.1', {port})); s.listen(); print(1, flush=True)"
    )
    listen += "; s.accept()"
    environment = {**os.environ, STACK_MARK: str(folder)}
    with subprocess.Popen([sys.executable, "-c", listen], env=environment, stdout=subprocess.PIPE) as own:
        assert own.stdout is not None
        own.stdout.readline()
        try:
            assert PortsProvider().observe(declared) == {"numbers": {"api": port}}
            assert numbers(inputs(folder, preferred={"api": port}, pinned={"api": port})) == {"api": port}
        finally:
            own.kill()


def test_services_that_start_at_once_get_different_numbers(folder: Path, said: list[str]) -> None:
    usual = any_free()
    first = numbers(inputs(folder, service="one", preferred={"api": usual}))
    second = numbers(inputs(folder, service="two", preferred={"api": usual, "web": usual}))
    assert len({*first.values(), *second.values()}) == 3
    assert "another service of this stack" in said[0]


def test_a_port_of_the_settings_is_taken_exactly(folder: Path, said: list[str]) -> None:
    wanted = any_free()
    assert numbers(inputs(folder, pinned={"api": wanted})) == {"api": wanted}


def test_a_port_of_the_settings_that_is_taken_is_an_error_that_names_the_holder(folder: Path) -> None:
    with taken() as busy, pytest.raises(ResourceError) as caught:
        numbers(inputs(folder, pinned={"api": busy}))
    assert f"Port {busy}, which the settings name for web (api), is taken by" in str(caught.value)
    assert f"(process {os.getpid()})" in str(caught.value)
    assert "name another port in the settings" in str(caught.value)


def test_a_holder_that_cannot_be_seen_is_told_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "holder", lambda _: None)
    with taken() as busy, pytest.raises(ResourceError, match="a process that this user cannot see"):
        numbers(inputs(folder, pinned={"api": busy}))


def test_a_port_of_the_settings_that_another_service_has_is_an_error(folder: Path, said: list[str]) -> None:
    has = numbers(inputs(folder, service="other"))["api"]
    with pytest.raises(ResourceError, match="belongs to another service of this stack"):
        numbers(inputs(folder, pinned={"api": has}))


def test_numbers_are_given_back(folder: Path, said: list[str]) -> None:
    one, two = inputs(folder, service="one"), inputs(folder, service="two")
    numbers(one)
    numbers(two)
    PortsProvider().remove(one)
    assert list(json.loads((folder / "ports.json").read_text())) == ["two"]
    PortsProvider().remove(two)
    assert not (folder / "ports.json").exists()
    PortsProvider().remove(two)
    assert PortsProvider().observe(two) is None


def test_the_book_is_private(folder: Path, register: Path, said: list[str]) -> None:
    numbers(inputs(folder))
    for path in (folder / "ports.json", register):
        assert path.stat().st_mode & 0o077 == 0


def test_a_damaged_book_is_told_with_a_remedy(folder: Path) -> None:
    (folder / "ports.json").write_text("{")
    with pytest.raises(ResourceError, match=r"ports\.json is damaged .* Remove it"):
        PortsProvider().observe(inputs(folder))


@pytest.fixture
def neighbour(folder: Path) -> Path:
    """The folder of another stack."""
    other = folder / "neighbour"
    other.mkdir(mode=0o700)
    return other


def test_another_stacks_reservation_holds_before_anybody_listens(
    folder: Path, neighbour: Path, said: list[str]
) -> None:
    usual = numbers(inputs(folder))["api"]
    other = numbers(inputs(neighbour, preferred={"api": usual}))["api"]
    assert other != usual
    assert f"port {usual} (api) is taken by the stack in {folder}; {other} is used instead" in said[0]
    assert numbers(inputs(folder)) == {"api": usual}, "both stay where they are"
    assert numbers(inputs(neighbour, preferred={"api": usual})) == {"api": other}


def test_a_port_of_the_settings_that_another_stack_reserved_is_an_error_that_names_it(
    folder: Path, neighbour: Path, said: list[str]
) -> None:
    has = numbers(inputs(folder))["api"]
    with pytest.raises(ResourceError, match=rf"Port {has}, .*, is reserved by the stack in {folder}"):
        numbers(inputs(neighbour, pinned={"api": has}))


def test_a_vanished_stacks_reservations_go_with_its_folder(
    folder: Path, neighbour: Path, register: Path, said: list[str]
) -> None:
    usual = numbers(inputs(neighbour))["api"]
    shutil.rmtree(neighbour)
    assert numbers(inputs(folder, preferred={"api": usual})) == {"api": usual}
    assert [link.readlink() for link in register.iterdir()] == [folder]


def test_another_stacks_damaged_book_is_its_own_trouble(
    folder: Path, neighbour: Path, said: list[str]
) -> None:
    numbers(inputs(neighbour))
    (neighbour / "ports.json").write_text("[]")
    declared = inputs(folder)
    assert numbers(declared) == declared.preferred


def test_a_register_that_is_gone_is_made_again_by_the_next_look(
    folder: Path, neighbour: Path, register: Path, said: list[str]
) -> None:
    usual = numbers(inputs(folder))["api"]
    shutil.rmtree(register)
    PortsProvider().observe(inputs(folder))
    assert numbers(inputs(neighbour, preferred={"api": usual})) != {"api": usual}


def test_of_two_stacks_with_one_number_the_one_that_does_not_run_gives_it_up(
    folder: Path, neighbour: Path, register: Path, said: list[str]
) -> None:
    one = inputs(folder)
    port = numbers(one)["api"]
    shutil.rmtree(register)
    two = inputs(neighbour, preferred={"api": port})
    assert numbers(two) == {"api": port}, "nothing was known of the first"
    assert PortsProvider().observe(one) is None
    assert numbers(one) != {"api": port}
    assert PortsProvider().observe(two) == {"numbers": {"api": port}}


def test_nothing_stays_when_the_last_reservation_is_given_back(
    folder: Path, register: Path, said: list[str]
) -> None:
    numbers(inputs(folder))
    assert register.exists()
    PortsProvider().remove(inputs(folder))
    assert not register.exists()
    assert PortsProvider().observe(inputs(folder)) is None
    assert not register.exists()


def test_a_register_of_somebody_else_is_refused(folder: Path, register: Path) -> None:
    register.mkdir(mode=0o777)
    register.chmod(0o777)
    with pytest.raises(ResourceError, match="belongs to another user or is open to others"):
        numbers(inputs(folder))


def test_a_register_that_was_removed_while_its_lock_was_awaited_is_locked_anew(
    folder: Path, register: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited: list[int] = []

    def lock(opened: int, operation: int) -> None:
        if not awaited:
            register.rmdir()
        awaited.append(opened)
        fcntl.flock(opened, operation)

    monkeypatch.setattr(reservations, "fcntl", SimpleNamespace(flock=lock, LOCK_EX=fcntl.LOCK_EX))
    numbers(inputs(folder))
    assert len(awaited) == 2
    assert [link.readlink() for link in register.iterdir()] == [folder]


def test_stacks_that_start_at_once_get_different_numbers(folder: Path, register: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(register)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for turn in range(60):
            usual = any_free()
            for number, racer in enumerate(racers):
                print(folder / f"{number}-{turn % 2}", usual, file=racer.stdin, flush=True)
            given = [number for racer in racers for number in str(_line(racer)).split()]
            assert len(set(given)) == 2 * len(racers), f"round {turn}: {given}"
            for racer in racers:
                print("remove", file=racer.stdin, flush=True)
            assert [_line(racer) for racer in racers] == ["removed"] * len(racers)
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert not register.exists()


def _line(racer: "subprocess.Popen[str]") -> str:
    assert racer.stdout is not None
    return racer.stdout.readline().strip()
