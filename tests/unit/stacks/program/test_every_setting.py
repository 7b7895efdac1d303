"""No setting does nothing: each, changed alone, changes what is declared to Pulumi."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from components.kubernetes import images
from stacks.preflight.capacity import requirements_of
from stacks.program.platform import Platform
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.targets import KubernetesSettings
from stacks.settings.validation import section_at, settings_from
from tests.authority import Authority
from tests.unit.stacks.declaring import all_tools_installed, declare
from toolchain.images import Image

CHANGED: Mapping[str, Any] = {
    "dataFolder": "/srv/marketlake/other",
    "keepData": True,
    "venue.standIn": False,
    "venue.endpoint": "https://s3.example.com",
    "buckets.landing": "other-landing",
    "buckets.lake": "other-lake",
    "buckets.standIn": "other-venue",
    "telemetry.metricsRetentionDays": 31,
    "telemetry.logsRetentionDays": 15,
    "telemetry.tracesRetentionHours": 73,
}
"""Values that are not simply the default plus something."""
CHANGED = {
    **CHANGED,
    "kubernetes.kubeconfig": "/etc/other.conf",
    "kubernetes.context": "other",
    "kubernetes.namespace": "other",
    "kubernetes.operators": ["10.20.0.0/16"],
    "kubernetes.closedNetworks": ["8.8.0.0/16"],
    "kubernetes.externalNetworks": ["10.20.0.0/16"],
    "images.registry": "registry.example.com/lake",
    "images.vendor": {"minio": {"reference": f"vendor/minio@sha256:{'1' * 64}"}},
    "collection.maxWorkers": 5,
    "database.external.host": "other.example.com",
    "database.external.sslmode": "require",
    "database.external.rootCertificate": Authority().certificate,
    "objectStore.external.endpoint": "https://other.example.com",
    "eventBus.external.bootstrapServers": "other.example.com:9092",
    "eventBus.external.securityProtocol": "SASL_PLAINTEXT",
    "eventBus.external.rootCertificate": Authority().certificate,
    "eventBus.external.saslMechanism": "PLAIN",
    "eventBus.external.replicationFactor": 3,
}
EXTERNAL: Mapping[str, dict[str, Any]] = {
    "database": {"database": {"external": {"host": "db.example.com", "password": "s"}}},
    "objectStore": {
        "objectStore": {
            "external": {
                "endpoint": "https://s3.example.com",
                "accessKeyId": "A",
                "secretAccessKey": "s",
                "runtime": {"accessKeyId": "R", "secretAccessKey": "s"},
            }
        },
        "venue": {"standIn": False},
    },
    "eventBus": {"eventBus": {"external": {"bootstrapServers": "a:9092", "username": "u", "password": "s"}}},
}
"""A whole external server, by section."""
IN_A_CLUSTER = ("kubernetes.", "images.")
OF_WAYS_OUT = ("kubernetes.closedNetworks", "kubernetes.externalNetworks")
ALSO_IN_A_CLUSTER = (".cpu", ".workerCpu", ".storageClass", ".maxWorkers")


def needed(place: str) -> dict[str, Any]:
    """What has to be set besides for a setting to mean anything."""
    if ".external." in place:
        return EXTERNAL[place.partition(".")[0]]
    if place in OF_WAYS_OUT:
        return {
            "target": "kubernetes",
            "kubernetes": {"kubeconfig": "/etc/cluster.conf"},
            "venue": {"standIn": False},
        }
    if place.startswith(IN_A_CLUSTER) or place.endswith(ALSO_IN_A_CLUSTER):
        return {"target": "kubernetes", "kubernetes": {"kubeconfig": "/etc/cluster.conf"}}
    if place == "venue.bucket":
        return {"venue": {"endpoint": "https://s3.example.com"}}
    return {}


COUNTED = {"workflowEngine.memory", "workflowEngine.workerMemory", "collection.memory"}
"""Settings that only the check of the machine's size uses: these programs have no limit that could be set."""
THE_REST = {"target", "objectStore.external.allowHttp"}
"""What other tests show: every other target declares other resources, and what this allows is refused without it."""


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    all_tools_installed(monkeypatch)
    monkeypatch.setattr(KubernetesSettings, "kubeconfig_file", lambda self: self.kubeconfig)
    monkeypatch.setattr(images, "locate", _image)


def _image(name: str, *, registry: str | None = None, vendor: Any = None) -> Image:
    given = (vendor or {}).get(name)
    return Image(
        name=name,
        version="1",
        reference=given.reference if given else f"{registry or 'local'}/{name}@sha256:{'0' * 64}",
        digest=f"sha256:{'0' * 64}",
        executables=dict.fromkeys(("initdb", "postgres", "java", "prefect", name), "/opt/x"),
        roots={name: "/opt", "java": "/opt"},
        has_pages=True,
        architecture="amd64",
    )


def declared(settings: EnvironmentSettings) -> str:
    """Everything that an environment with these settings declares to Pulumi, as text."""
    engine = declare(lambda: Platform("test", settings).export())
    return json.dumps(engine.declared, sort_keys=True, default=str)


@cache
def unchanged(settings: str) -> str:
    """What these settings declare, in JSON; worked out once for all settings that are changed from there."""
    return declared(settings_from(json.loads(settings), source="before"))


def leaves(place: tuple[str, ...] = ()) -> Iterator[str]:
    section = section_at(place)
    assert section is not None
    for field in section.model_fields.values():
        inner = (*place, str(field.alias))
        if section_at(inner) is None:
            yield ".".join(inner)
        else:
            yield from leaves(inner)


def default_of(place: str) -> Any:
    *sections, key = place.split(".")
    section = section_at(tuple(sections))
    assert section is not None
    default = next(field.default for field in section.model_fields.values() if field.alias == key)
    return "" if default is None or default is PydanticUndefined else default


def other_value(place: str) -> Any:
    if place in CHANGED:
        return CHANGED[place]
    if place.startswith("ports."):
        return 23456
    default = default_of(place)
    return f"other{default}" if isinstance(default, str) else default * 2


def nested(place: str, value: Any) -> dict[str, Any]:
    section, _, key = place.rpartition(".")
    return nested(section, {key: value}) if section else {key: value}


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    both = {**base, **more}
    for key in base.keys() & more.keys():
        if isinstance(base[key], dict) and isinstance(more[key], dict):
            both[key] = merged(base[key], more[key])
    return both


@pytest.mark.parametrize("place", [place for place in leaves() if place not in THE_REST | COUNTED])
def test_a_setting_changes_what_is_declared(place: str) -> None:
    before = needed(place)
    after = merged(before, nested(place, other_value(place)))
    assert unchanged(json.dumps(before)) != declared(settings_from(after, source="after"))


@pytest.mark.parametrize("place", sorted(COUNTED))
def test_memory_without_a_limit_is_counted(place: str) -> None:
    more = settings_from(nested(place, other_value(place)), source="after")
    assert (
        requirements_of(more, is_new=True).memory_mib
        > requirements_of(EnvironmentSettings(), is_new=True).memory_mib
    )


def test_the_same_settings_declare_the_same() -> None:
    assert declared(EnvironmentSettings()) == declared(EnvironmentSettings())
