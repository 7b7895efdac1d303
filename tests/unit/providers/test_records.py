"""What every provider promises about recorded state: no value that drifted, or is old, stops a look or a removal."""

import importlib
import pkgutil
from typing import Any

import pytest

from components import providers
from components.providers.base import Provider, Record
from components.providers.bucket import BucketProvider
from components.providers.cluster_namespace import ClusterNamespaceProvider
from components.providers.flow_deployment import FlowDeploymentProvider
from components.providers.platform_file import PlatformFileProvider
from components.providers.ports import PortsProvider
from components.providers.process import ProcessProvider
from components.providers.secret import GeneratedSecretProvider
from components.providers.sql_database import SqlDatabaseProvider
from components.providers.store_user import StoreUserProvider
from components.providers.supervisor import SupervisorProvider
from components.providers.topic import TopicProvider
from components.providers.work_pool import WorkPoolProvider

AnyProvider = Provider[Any, Any]

for _module in pkgutil.iter_modules(providers.__path__):
    importlib.import_module(f"{providers.__name__}.{_module.name}")

ALL = [each for each in Provider.__subclasses__() if each.__module__.startswith(f"{providers.__name__}.")]
STORE = {"endpoint": "http://127.0.0.1:1", "access_key_id": "k", "secret_access_key": "s3cret"}
ENGINE = {"api_url": "http://127.0.0.1:1/api"}
BUS = {"bootstrap_servers": "127.0.0.1:1"}
SERVER = {"host": "127.0.0.1", "port": 5432.0, "superuser": "postgres", "superuser_password": "s3cret"}

DRIFTED: dict[type[AnyProvider], tuple[dict[str, Any], dict[str, Any]]] = {
    BucketProvider: ({"connection": STORE, "bucket": "landing"}, {"access": "custom", "tags": {"a": None}}),
    ClusterNamespaceProvider: ({"namespace": "Kube_System", "stack": "blue", "kubeconfig": "/k"}, {}),
    FlowDeploymentProvider: (
        {"connection": ENGINE, "flow": "f", "deployment": "d"},
        {"entrypoint": "", "work_pool": "", "concurrency_limit": 0, "job_variables": None, "tags": None},
    ),
    GeneratedSecretProvider: ({}, {"length": 7}),
    PlatformFileProvider: ({"path": "/p"}, {"settings": None}),
    PortsProvider: ({"folder": "/f", "service": "web"}, {"preferred": {"api": "http"}}),
    ProcessProvider: ({"folder": "/f", "name": "web"}, {"argv": "true", "health": "smell", "replicas": None}),
    SqlDatabaseProvider: ({**SERVER, "name": "Their-Base", "owner": "Their Role"}, {"owner_password": None}),
    StoreUserProvider: ({"connection": STORE, "user": "me"}, {"buckets": [], "secret_access_key": ""}),
    SupervisorProvider: ({"folder": "/f"}, {}),
    TopicProvider: (
        {"connection": BUS, "topic": "t"},
        {"partitions": 0, "replication_factor": 0, "config": {"a": None}},
    ),
    WorkPoolProvider: (
        {"connection": ENGINE, "work_pool": "w"},
        {"worker_type": None, "concurrency_limit": 0, "description": None},
    ),
}
"""By provider: what its resource is found by, and what else may be recorded of it that nobody could declare."""


def test_every_provider_is_looked_at_here() -> None:
    assert set(DRIFTED) == set(ALL)


@pytest.mark.parametrize("provider", ALL, ids=lambda each: each.__name__)
def test_a_record_holds_the_identity_and_demands_nothing_of_a_value(provider: type[AnyProvider]) -> None:
    fields = provider.record.model_fields
    assert provider.identity <= set(fields) <= set(provider.model.model_fields)
    assert issubclass(provider.model, provider.record), "so whoever has a declaration can look, too"
    assert [name for name, field in fields.items() if field.metadata] == []
    assert "version" not in fields


@pytest.mark.parametrize("provider", ALL, ids=lambda each: each.__name__)
@pytest.mark.parametrize("verb", ["observe", "remove"])
def test_no_recorded_value_but_the_identity_is_needed_to_look_and_to_remove(
    provider: type[AnyProvider], verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_by, others = DRIFTED[provider]
    state = {**found_by, **others, "of_another_version": 1}
    if "connection" in state:
        state["connection"] = {**state["connection"], "of_another_version": 1}
    if others:
        assert provider().check({}, {**found_by, **others, "version": "1"}).failures
    seen: list[Record] = []

    def look(_: AnyProvider, recorded: Record) -> None:
        seen.append(recorded)

    monkeypatch.setattr(provider, verb, look)
    if verb == "observe":
        provider().read("id", state)
    else:
        provider().delete("id", state)
    (record,) = seen
    assert {name: getattr(record, name) for name in provider.identity} == {
        name: state[name] for name in provider.identity
    }


def test_a_program_that_another_version_recorded_does_not_run_as_declared() -> None:
    found_by, others = DRIFTED[ProcessProvider]
    assert ProcessProvider().read("web", {**found_by, **others}).id == ""


def test_another_owner_is_no_reason_to_drop_a_database() -> None:
    state = {
        **DRIFTED[SqlDatabaseProvider][0],
        "name": "lake",
        "owner": "lake",
        "owner_password": "s",
        "version": "1",
    }
    diff = SqlDatabaseProvider().diff("lake", {**state, "drift": "it belongs to the role 'ann'"}, state)
    assert (diff.changes, diff.replaces) == (True, [])


def test_another_kind_of_workers_replaces_a_work_pool() -> None:
    state = {**DRIFTED[WorkPoolProvider][0], "version": "1", "description": "", "worker_type": "process"}
    diff = WorkPoolProvider().diff("w", {**state, "worker_type": "docker"}, state)
    assert (diff.changes, diff.replaces) == (True, ["worker_type"])
