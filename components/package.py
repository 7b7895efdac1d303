"""The components as a Pulumi package, for programs in any of Pulumi's languages."""

import inspect
import json
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pulumi
from pulumi.errors import InputPropertyError
from pulumi.provider.experimental.analyzer import PropertyDefinition, PropertyType
from pulumi.provider.experimental.component import ComponentProvider

from components.component import Component
from components.data_lake import DataLake
from components.database import Database
from components.event_bus import EventBus
from components.host import Host
from components.namespace import Namespace
from components.object_store import ObjectStore
from components.observability import Observability
from components.worker_pool import CollectionWorkers, WorkflowWorker
from components.workflow_engine import WorkflowEngine

NAME = "marketlake"
COMPONENTS: tuple[type[Component], ...] = (
    Host,
    Namespace,
    Observability,
    Database,
    ObjectStore,
    EventBus,
    WorkflowEngine,
    DataLake,
    WorkflowWorker,
    CollectionWorkers,
)
"""In the order in which a platform needs them."""


class Package(ComponentProvider):
    """Hosts the components, each as ``marketlake:index:<class>``.

    Its schema follows from the components' arguments and outputs; what describes them are the docstrings.
    """

    def __init__(self) -> None:
        super().__init__(list(COMPONENTS), NAME, version=version("marketlake-platform"))
        schema = json.loads(self.schema or "{}")
        _lay_out(schema)
        self.schema = json.dumps(schema)

    def map_input_properties(
        self,
        inputs: Any,
        properties: dict[str, PropertyDefinition],
        mapping: dict[str, str],
        component_name: str,
        property_path: str,
    ) -> Any:
        """Arguments in Python's names; where an integer is declared, one arrives, also within an output.

        Raises:
            pulumi.InputPropertyError: an input is missing, has a value that is not allowed, or is known too late.
        """
        for name, declared in properties.items():
            if declared.ref and isinstance(inputs, dict) and isinstance(inputs.get(name), pulumi.Output):
                path = f"{property_path}.{name}" if property_path else name
                raise InputPropertyError(
                    path,
                    f"`{path}` has to be written out where it is used: in a variable beside outputs of resources, "
                    "or as an output itself, it is known too late",
                )
        # Pulumi's own conversion of integers fails for outputs.
        numbers = {
            name: replace(declared, type=PropertyType.NUMBER) if _is_integer(declared) else declared
            for name, declared in properties.items()
        }
        mapped = super().map_input_properties(inputs, numbers, mapping, component_name, property_path)
        return {name: _whole(value) for name, value in mapped.items()}


def _is_integer(declared: PropertyDefinition) -> bool:
    return declared.type is PropertyType.INTEGER


def _whole(value: Any) -> Any:
    """The engine hands every number on as a float, and none of the components takes a fraction."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case pulumi.Output():
            return value.apply(_whole)
        case _:
            return value


def _lay_out(schema: Any) -> None:
    """Take the source's indentation out of every description."""
    match schema:
        case dict():
            for key, value in schema.items():
                if key == "description" and isinstance(value, str):
                    schema[key] = inspect.cleandoc(value)
                else:
                    _lay_out(value)
        case list():
            for item in schema:
                _lay_out(item)
