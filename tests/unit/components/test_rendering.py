"""Placeholders become what the target knows; nothing else is touched."""

from dataclasses import replace
from pathlib import Path

import pytest
from marketlake.settings import HealthKind

from components.rendering import (
    PlaceholderValues,
    UnresolvedError,
    console_address,
    fill,
    health_target,
    main_address,
    render_argv,
    render_environment,
    render_files,
    render_secret_environment,
    render_setup,
)
from components.service import Command, File, Health, Port, Resources, Service, Tool, Volume

SERVICE = Service(
    name="store",
    program=Tool(name="minio", needs=("java",)),
    argv=(
        "{bin:minio}",
        "{bind}:{port:api}",
        "{volume:data}",
        "{root:java}/lib",
        "{memory:50}m",
        "{logs}",
        "{temporary}",
    ),
    ports={"api": Port(preferred=9000, scheme="http"), "console": Port(preferred=9001, scheme="http")},
    volumes={"data": Volume(size_mib=1)},
    environment={"URL": "{input:url}", "PUBLIC": "{address:api}"},
    secret_environment={"KEY": "{secret:key}"},
    files={
        "plain": File(text="cpu: {} ${env:X}"),
        "secret": File(text="{secret:key} {file:plain}", secret=True),
    },
    setup=(
        Command(
            name="format",
            argv=("{bin:minio}", "format"),
            stdin="plain",
            creates="{volume:data}/done",
            staged=True,
        ),
        Command(name="check", argv=("{bin:minio}", "check")),
    ),
    health=Health(kind=HealthKind.HTTP, port="api", path="/ready"),
    resources=Resources(memory_mib=301),
    console=("console", "/ui"),
)
ADDRESSES = {"api": "10.0.0.1:1", "console": "10.0.0.1:2"}
PLACEMENT = PlaceholderValues(
    bind="10.0.0.1",
    ports={"api": 1, "console": 2},
    addresses=ADDRESSES,
    selves={name: f"127.0.0.1:{number}" for name, number in (("api", 1), ("console", 2))},
    volumes={"data": Path("/v")},
    files={"plain": Path("/f/plain"), "secret": Path("/f/secret")},
    executables={"minio": Path("/b/minio")},
    roots={"java": Path("/j")},
    logs="/l/*.log",
    temporary=Path("/t"),
    inputs={"url": "http://x"},
    secrets={"key": "geheim"},
)


def test_everything_is_filled_in() -> None:
    assert render_argv(SERVICE, PLACEMENT) == (
        "/b/minio",
        "10.0.0.1:1",
        "/v",
        "/j/lib",
        "150m",
        "/l/*.log",
        "/t",
    )
    assert render_environment(SERVICE, PLACEMENT) == {"URL": "http://x", "PUBLIC": "10.0.0.1:1"}
    assert render_secret_environment(SERVICE, PLACEMENT) == {"KEY": "geheim"}
    assert render_files(SERVICE, PLACEMENT, secret=False) == {"plain": "cpu: {} ${env:X}"}
    assert render_files(SERVICE, PLACEMENT, secret=True) == {"secret": "geheim /f/plain"}


def test_set_up_commands_get_definite_paths() -> None:
    first, second = render_setup(SERVICE, PLACEMENT)
    assert (first.argv, first.stdin, first.creates) == (
        ("/b/minio", "format"),
        Path("/f/plain"),
        Path("/v/done"),
    )
    assert first.staged
    assert (second.stdin, second.creates, second.staged) == (None, None, False)


@pytest.mark.parametrize("text", ["{input:other}", "{secret:other}", "{bin:other}"])
def test_what_nobody_provided_is_named_with_what_there_is(text: str) -> None:
    with pytest.raises(UnresolvedError, match=r"service store needs \w+ 'other'; known: (url|key|minio)"):
        fill(text, SERVICE, PLACEMENT)


def test_a_placement_never_shows_its_secrets() -> None:
    assert "geheim" not in repr(PLACEMENT)


def test_addresses_for_people_and_for_health_checks() -> None:
    assert main_address(SERVICE, ADDRESSES) == "http://10.0.0.1:1"
    assert console_address(SERVICE, ADDRESSES) == "http://10.0.0.1:2/ui"
    assert health_target(SERVICE, ADDRESSES) == "http://10.0.0.1:1/ready"
    by_tcp = replace(
        SERVICE,
        health=Health(kind=HealthKind.TCP, port="api"),
        ports={**SERVICE.ports, "api": Port(preferred=1)},
    )
    assert health_target(by_tcp, ADDRESSES) == "10.0.0.1:1"
    assert main_address(by_tcp, ADDRESSES) == "10.0.0.1:1"


def test_a_service_without_ports_has_no_address() -> None:
    worker = Service(
        name="worker",
        program=Tool(name="minio"),
        argv=("{bin:minio}",),
        health=Health(kind=HealthKind.PROCESS),
        resources=Resources(memory_mib=1),
    )
    assert main_address(worker, {}) is console_address(worker, {}) is health_target(worker, {}) is None
