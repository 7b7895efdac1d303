"""Consistency of settings: contradictions between them, and missing secrets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from marketlake.settings import SslMode
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from stacks.settings.environment import EnvironmentSettings
from stacks.settings.external import SecurityProtocol
from stacks.settings.section import Section
from stacks.settings.targets import Target

_ONLY_HOST = (("ports",), ("data_folder",))
_ONLY_KUBERNETES = (
    ("kubernetes",),
    ("images",),
    ("database", "cpu"),
    ("database", "storage_class"),
    ("object_store", "cpu"),
    ("object_store", "storage_class"),
    ("event_bus", "cpu"),
    ("event_bus", "storage_class"),
    ("workflow_engine", "cpu"),
    ("workflow_engine", "worker_cpu"),
    ("collection", "cpu"),
    ("collection", "max_workers"),
    ("telemetry", "cpu"),
    ("telemetry", "storage_class"),
)
_OF_OUR_OWN_SERVER = ("memory", "disk", "cpu", "storage_class")
_PORTS_OF: Mapping[str, tuple[str, ...]] = {
    "database": ("database",),
    "object_store": ("object_store", "object_store_console"),
    "event_bus": ("event_bus", "event_bus_controller"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    location: tuple[str, ...]
    """Keys on the way to it, as in the file."""
    message: str


def inconsistencies(settings: EnvironmentSettings) -> list[Problem]:
    """Return all contradictions between settings."""
    return list(_inconsistencies(settings))


def missing_secrets(settings: EnvironmentSettings) -> list[tuple[str, ...]]:
    """Return the locations of the missing secrets: a file may leave them out, `up` needs them."""
    found: list[tuple[str, ...]] = []
    if (database := settings.database.external) and database.password is None:
        found.append(("database", "external", "password"))
    if store := settings.object_store.external:
        if store.secret_access_key is None:
            found.append(("objectStore", "external", "secretAccessKey"))
        if store.runtime and store.runtime.secret_access_key is None:
            found.append(("objectStore", "external", "runtime", "secretAccessKey"))
    if (bus := settings.event_bus.external) and bus.has_sasl and bus.password is None:
        found.append(("eventBus", "external", "password"))
    return found


def _inconsistencies(settings: EnvironmentSettings) -> Iterator[Problem]:
    yield from _of_the_other_target(settings)
    yield from _beside_an_external_server(settings)
    yield from _of_the_event_bus(settings)
    yield from _of_trust(settings)
    most, workers = settings.collection.max_workers, settings.collection.workers
    partitions = settings.event_bus.partitions
    if most is not None and most < workers:
        yield _problem(
            f"{most} is less than collection.workers, {workers}: give at least as many",
            "collection",
            "max_workers",
        )
    if most is not None and most > partitions:
        yield _problem(
            f"{most} is more than eventBus.partitions, {partitions}, and only so many get tasks at once: give fewer, "
            "or more partitions",
            "collection",
            "max_workers",
        )


def _of_the_other_target(settings: EnvironmentSettings) -> Iterator[Problem]:
    target = settings.target
    other, foreign = (
        (Target.KUBERNETES, _ONLY_KUBERNETES) if target is Target.HOST else (Target.HOST, _ONLY_HOST)
    )
    for location in foreign:
        if _is_set(settings, location):
            yield _problem(
                f"is of the target {other.value}, and marketlake:target is {target.value}: remove it, or set the other "
                "target",
                *location,
            )


def _beside_an_external_server(settings: EnvironmentSettings) -> Iterator[Problem]:
    for section, ports in _PORTS_OF.items():
        if getattr(settings, section).external is None:
            continue
        own = [(section, name) for name in _OF_OUR_OWN_SERVER]
        own += [("ports", name) for name in ports]
        for location in own:
            if _is_set(settings, location):
                yield _problem(
                    f"is of a server of our own, and {to_camel(section)}.external names an external one: remove one of "
                    "the two",
                    *location,
                )
    if settings.object_store.external and settings.venue.stand_in:
        yield _problem(
            "everybody may read the stand-in venue's bucket, which is nothing for objectStore.external: set it to "
            "false",
            "venue",
            "stand_in",
        )


def _of_the_event_bus(settings: EnvironmentSettings) -> Iterator[Problem]:
    bus = settings.event_bus.external
    if bus is None:
        return
    place, protocol = ("event_bus", "external"), bus.security_protocol.value
    if bus.has_sasl and bus.username is None:
        yield _problem(
            f"is missing, and securityProtocol is {protocol}: give it, or choose {SecurityProtocol.PLAINTEXT.value} or "
            f"{SecurityProtocol.SSL.value}",
            *place,
            "username",
        )
    for name in ("username", "password", "sasl_mechanism"):
        if not bus.has_sasl and _is_set(settings, (*place, name)):
            yield _problem(
                f"is of a protocol with SASL, and securityProtocol is {protocol}: remove it, or choose "
                f"{SecurityProtocol.SASL_SSL.value}",
                *place,
                name,
            )


def _of_trust(settings: EnvironmentSettings) -> Iterator[Problem]:
    """What is verified of external servers, and what is given for it."""
    database, store, bus = (
        settings.database.external,
        settings.object_store.external,
        settings.event_bus.external,
    )
    if database and database.root_certificate and not database.sslmode.verifies:
        yield _problem(
            f"is not looked at where database.external.sslmode is {database.sslmode.value}: remove it, or choose "
            f"{SslMode.VERIFY_FULL.value}",
            *("database", "external", "root_certificate"),
        )
    if database and database.sslmode is SslMode.VERIFY_CA and not database.root_certificate:
        yield _problem(
            f"is missing, and sslmode is {SslMode.VERIFY_CA.value}: any public authority's certificate, for whatever "
            f"name, would do. Give it, or choose {SslMode.VERIFY_FULL.value}",
            *("database", "external", "root_certificate"),
        )
    if bus and bus.root_certificate and not bus.has_tls:
        yield _problem(
            f"is of a protocol with TLS, and securityProtocol is {bus.security_protocol.value}: remove it, or choose "
            f"{SecurityProtocol.SASL_SSL.value}",
            *("event_bus", "external", "root_certificate"),
        )
    if store and store.endpoint.startswith("http://") and not store.allow_http:
        yield _problem(
            "is not encrypted: whoever is on the way can read and change what is stored. Give one with https://, or "
            "set objectStore.external.allowHttp to true",
            *("object_store", "external", "endpoint"),
        )
    if store and store.allow_http and not store.endpoint.startswith("http://"):
        yield _problem(
            "allows what objectStore.external.endpoint does not ask for: remove it",
            *("object_store", "external", "allow_http"),
        )


def _problem(message: str, *location: str) -> Problem:
    return Problem(tuple(to_camel(step) for step in location), message)


def _is_set(settings: EnvironmentSettings, location: tuple[str, ...]) -> bool:
    """Whether the settings name it themselves, to whatever value."""
    model: BaseModel = settings
    for step in location:
        if not isinstance(model, Section) or step not in model.model_fields_set:
            return False
        model = getattr(model, step)
    return True
