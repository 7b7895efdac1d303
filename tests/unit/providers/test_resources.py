"""What the resource classes register with Pulumi's engine."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks

from components.providers.bucket import Bucket, BucketProvider
from components.providers.flow_deployment import FlowDeployment, FlowDeploymentProvider
from components.providers.topic import Topic, TopicProvider
from components.providers.work_pool import WorkPool, WorkPoolProvider

STORE: Any = {"endpoint": "http://127.0.0.1:9000", "access_key_id": "k"}
ENGINE: Any = {"api_url": "http://127.0.0.1:4200/api"}


class Engine(mocks.Mocks):
    """Records what is registered."""

    def __init__(self) -> None:
        self.registered: dict[str, mocks.MockResourceArgs] = {}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        self.registered[args.name] = args
        return args.name, args.inputs

    def call(self, args: mocks.MockCallArgs) -> Any:
        raise AssertionError(args)


@pytest.fixture
def engine() -> Iterator[Engine]:
    asyncio.set_event_loop(asyncio.new_event_loop())
    engine = Engine()
    mocks.set_mocks(engine, project="marketlake", stack="test")
    yield engine
    asyncio.get_event_loop().close()


def declare(program: Callable[[], None]) -> None:
    pulumi.runtime.test(program)()


def test_each_resource_is_registered_under_its_token_with_its_providers_version(engine: Engine) -> None:
    def program() -> None:
        Bucket("b", {"connection": STORE | {"secret_access_key": "x"}, "bucket": "landing"})
        Topic("t", {"connection": {"bootstrap_servers": "127.0.0.1:9092"}, "topic": "tasks"})
        WorkPool("w", {"connection": ENGINE, "work_pool": "collection"})
        FlowDeployment(
            "d", {"connection": ENGINE, "flow": "f", "deployment": "d", "entrypoint": "a.b", "work_pool": "w"}
        )

    declare(program)

    assert {name: args.typ for name, args in engine.registered.items()} == {
        "b": "pulumi-python:dynamic/marketlake:Bucket",
        "t": "pulumi-python:dynamic/marketlake:Topic",
        "w": "pulumi-python:dynamic/marketlake:WorkPool",
        "d": "pulumi-python:dynamic/marketlake:FlowDeployment",
    }
    assert {name: args.inputs["version"] for name, args in engine.registered.items()} == {
        "b": BucketProvider.VERSION,
        "t": TopicProvider.VERSION,
        "w": WorkPoolProvider.VERSION,
        "d": FlowDeploymentProvider.VERSION,
    }


def test_the_provider_is_recorded_by_reference_and_holds_no_secret(engine: Engine) -> None:
    def program() -> None:
        connection = STORE | {"secret_access_key": pulumi.Output.secret("s3cret")}
        Bucket("b", {"connection": connection, "bucket": "landing"})

    declare(program)

    pickled = engine.registered["b"].inputs["__provider"]
    assert isinstance(pickled, str)
    assert len(pickled) < 200, "the class was pickled by value: it has to lie in an importable module"
