"""What an environment consists of, computed from its settings alone: no tool, server or cluster is needed."""

import asyncio
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks

from components.kubernetes import images as pods
from policies.rules import Declared
from stacks.engine.workspace import PROJECT_FOLDER
from stacks.program import external_servers as external
from stacks.program.platform import Platform
from stacks.settings.validation import read_environment
from tests.unit.stacks.declaring import Engine, all_tools_installed
from toolchain.images import Image

ENVIRONMENTS = PROJECT_FOLDER / "stacks" / "environments"
_STACK = "::pulumi:pulumi:Stack::"
_DIGEST = "sha256:" + "0" * 64
_PROGRAMS = ("minio", "java", "postgres", "initdb", "prefect", "marketlake", "otel-collector", "jaeger")


def environments() -> list[str]:
    """All environments that have settings."""
    return sorted(path.name.split(".")[1] for path in ENVIRONMENTS.glob("Pulumi.*.yaml"))


@dataclass(frozen=True, slots=True)
class Registered:
    """How the engine finds a resource in a state."""

    urn: str
    """Its types and its name, which are what the URNs of every stack end in."""
    aliases: frozenset[str]
    """Former ones of these, its parents' included."""
    provider: str | None
    """The pickle of its dynamic provider."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A resource of the plan."""

    declared: Declared
    parent: str
    """Name of what it is a part of; empty for the stack."""
    registered: Registered


class _Cluster(Engine):
    """Gives every Service an address."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        id_, outputs = super().new_resource(args)
        if args.typ == "kubernetes:core/v1:Service":
            outputs["spec"] = {**outputs["spec"], "clusterIP": "10.96.0.99"}
        return id_, outputs


class _Monitor(mocks.MockMonitor):
    """Remembers whose child each resource is, and how it was registered."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.parents: dict[str, str] = {}
        self.registered: dict[str, Registered] = {}

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """As the engine does it, with the types of all parents but the stack."""
        outer = "" if not parent or _STACK in parent else f"{parent.split('::')[2]}$"
        return f"urn:pulumi:stack::project::{outer}{type_}::{name}"

    def SupportsFeature(self, request: Any) -> Any:  # noqa: N802 - the protocol's name
        """All but aliases that the engine works out: the SDK does it as well, and sends whole URNs."""
        if request.id == "aliasSpecs":
            return SimpleNamespace(hasSupport=False)
        return super().SupportsFeature(request)

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the protocol's name
        key, fields = f"{request.type} {request.name}", request.object.fields
        self.parents[key] = "" if _STACK in request.parent else request.parent.rpartition("::")[2]
        self.registered[key] = Registered(
            _end(self.make_urn(request.parent, request.type, request.name)),
            frozenset(map(_end, request.aliasURNs)) | self._inherited(request),
            fields["__provider"].string_value if "__provider" in fields else None,
        )
        return super().RegisterResource(request)

    def _inherited(self, request: Any) -> frozenset[str]:
        """Its place below its parent's former types. The SDK leaves this out for a child with no alias of its own."""
        types, _, name = _end(request.parent).partition("::")
        parent = self.registered.get(f"{types.rpartition('$')[2]} {name}")
        former = [alias.partition("::")[0] for alias in parent.aliases] if parent else []
        return frozenset(f"{outer}${request.type}::{request.name}" for outer in former)


def plan_of(environment: str) -> list[Planned]:
    """The resources of an environment, by component and name.

    Values that only a server would give are made up, the same each time.
    """
    settings = read_environment(ENVIRONMENTS / f"Pulumi.{environment}.yaml")
    engine = _Cluster()
    monitor = _Monitor(engine)
    with _pretended_machine(), _own_features():
        asyncio.set_event_loop(asyncio.new_event_loop())
        mocks.set_mocks(engine, project="marketlake", stack=environment, monitor=monitor)
        try:
            pulumi.runtime.test(lambda: Platform(environment, settings).export())()
        finally:
            asyncio.get_event_loop().close()
    planned = [
        Planned(_declared(key, properties), monitor.parents.get(key, ""), monitor.registered[key])
        for key, properties in engine.declared.items()
    ]
    return sorted(planned, key=lambda one: (one.parent, one.declared.type, one.declared.name))


def _end(urn: str) -> str:
    """The part of a URN after the stack and the project."""
    return "::".join(urn.split("::")[2:])


def _declared(key: str, properties: Mapping[str, Any]) -> Declared:
    kind, _, name = key.partition(" ")
    return Declared(urn=f"urn:{kind}::{name}", type=kind, name=name, properties=properties)


@contextmanager
def _own_features() -> Any:
    """Ask this monitor what it supports: mocks keep the answers of an earlier test's."""
    pulumi.runtime.settings.SETTINGS.feature_support = {}
    try:
        yield
    finally:
        pulumi.runtime.settings.SETTINGS.feature_support = {}


@contextmanager
def _pretended_machine() -> Any:
    """Tools, images and a kubeconfig that are the same everywhere."""

    def locate(name: str, *, registry: str | None = None, vendor: Any = None) -> Image:
        given = (vendor or {}).get(name)
        return Image(
            name=name,
            version="0",
            reference=given.reference if given else f"{registry or 'marketlake.local'}/{name}@{_DIGEST}",
            digest=_DIGEST,
            executables={program: f"/opt/{name}/bin/{program}" for program in (*_PROGRAMS, name)},
            roots={"kafka": "/opt/kafka"},
            has_pages=True,
            architecture="amd64",
        )

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        kubeconfig = Path(folder, "kubeconfig")
        kubeconfig.write_text("{}")
        all_tools_installed(patch)
        patch.setattr(pods, "locate", locate)
        # The secrets of external servers are missing, or encrypted: whichever, they are on no page.
        patch.setattr(external, "_revealed", lambda _secret: pulumi.Output.secret("value-of-external"))
        patch.setenv("MARKETLAKE_HOME", "/srv/marketlake")
        patch.setenv("HOME", folder)
        patch.setenv("KUBECONFIG", str(kubeconfig))
        yield
