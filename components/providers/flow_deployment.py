"""A Prefect deployment: a flow of the runtime that can be started with parameters, in a work pool."""

from collections.abc import Mapping
from typing import Any, ClassVar, NotRequired, TypedDict
from urllib.parse import quote

import pulumi
from pulumi.dynamic import Resource
from pydantic import Field

from components.providers.base import Inputs, Provider, Record, ResourceError
from components.providers.connections import WorkflowEngineConnection, WorkflowEngineConnectionArgs
from components.providers.prefect_api import PrefectApi
from components.providers.waiting import REFRESH_TIMEOUT_S, START_TIMEOUT_S

_ANY_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


class FlowDeploymentArgs(TypedDict):
    """Arguments of a deployment."""

    connection: pulumi.Input[WorkflowEngineConnectionArgs]
    flow: pulumi.Input[str]
    """Name of the flow, as its decorator gives it."""
    deployment: pulumi.Input[str]
    """Name of the deployment."""
    entrypoint: pulumi.Input[str]
    """Where the worker imports the flow: ``package.module.function``."""
    work_pool: pulumi.Input[str]
    description: NotRequired[pulumi.Input[str]]
    parameters: NotRequired[pulumi.Input[Mapping[str, Any]]]
    """Optional: default values of the flow's parameters."""
    parameter_schema: NotRequired[pulumi.Input[Mapping[str, Any]]]
    """Optional: JSON schema of the parameters, which Prefect then enforces; anything goes when omitted."""
    job_variables: NotRequired[pulumi.Input[Mapping[str, Any]]]
    """Optional: what the worker gives to each run: ``{"env": {…}}``. No secrets: Prefect shows them."""
    concurrency_limit: NotRequired[pulumi.Input[int]]
    """Optional: runs at the same time, further ones wait; unlimited when omitted."""
    tags: NotRequired[pulumi.Input[list[str]]]
    release: NotRequired[pulumi.Input[str]]
    """Optional: version of the deployed code, shown with every run."""


class FlowDeploymentRecord(Record):
    """What a deployment is found, and deleted, by."""

    connection: WorkflowEngineConnection
    flow: str
    deployment: str


class FlowDeploymentInputs(FlowDeploymentRecord, Inputs):
    """The resolved :class:`FlowDeploymentArgs`."""

    flow: str = Field(min_length=1, max_length=200)
    deployment: str = Field(min_length=1, max_length=200)
    entrypoint: str = Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
    work_pool: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    parameter_schema: dict[str, Any] = Field(default_factory=dict)
    job_variables: dict[str, Any] = Field(default_factory=dict)
    concurrency_limit: int | None = Field(default=None, ge=1)
    tags: list[str] = Field(default_factory=list)
    release: str | None = None


_WHERE_IT_IS = [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]
"""The flow is installed and needs no file. Without a step Prefect copies the working directory of whoever starts the
run into a folder of the run's own: in a container all of its file system.
"""


class FlowDeploymentProvider(Provider[FlowDeploymentInputs, FlowDeploymentRecord]):
    """Deployments, through Prefect's REST API.

    Deletion leaves the flow: the history of its runs hangs on it.
    """

    VERSION: ClassVar[str] = "2"
    model = FlowDeploymentInputs
    record = FlowDeploymentRecord
    identity = frozenset({"flow", "deployment"})

    def resource_id(self, declared: FlowDeploymentInputs) -> str:
        """``flow/deployment``, as Prefect's command line writes it."""
        return f"{declared.flow}/{declared.deployment}"

    def apply(self, declared: FlowDeploymentInputs) -> Mapping[str, Any]:
        """Register the flow and the deployment: Prefect's POST updates one of the same name."""
        with PrefectApi(declared.connection, START_TIMEOUT_S) as prefect:
            flow = prefect.post("/flows/", {"name": declared.flow})
            if flow is None:
                raise ResourceError(f"Prefect neither finds nor creates the flow {declared.flow!r}.")
            body = {
                "name": declared.deployment,
                "flow_id": flow["id"],
                "entrypoint": declared.entrypoint,
                "work_pool_name": declared.work_pool,
                "description": declared.description,
                "parameters": declared.parameters,
                "parameter_openapi_schema": declared.parameter_schema or _ANY_PARAMETERS,
                "enforce_parameter_schema": bool(declared.parameter_schema),
                "job_variables": declared.job_variables,
                "concurrency_limit": declared.concurrency_limit,
                "concurrency_options": {"collision_strategy": "ENQUEUE"}
                if declared.concurrency_limit
                else None,
                "tags": declared.tags,
                "version": declared.release,
                "paused": False,
                "pull_steps": _WHERE_IT_IS,
            }
            deployment = prefect.post("/deployments/", body)
            if deployment is None:
                raise ResourceError(
                    f"Prefect refuses {self.resource_id(declared)!r}: its job variables do not "
                    f"fit the work pool {declared.work_pool!r}, or its parameters their schema."
                )
        return {"deployment_id": deployment["id"]}

    def observe(self, recorded: FlowDeploymentRecord) -> Mapping[str, Any] | None:
        """The deployment as Prefect has it."""
        with PrefectApi(recorded.connection, REFRESH_TIMEOUT_S) as prefect:
            live = prefect.get(_path(recorded))
        if live is None:
            return None
        schema = live["parameter_openapi_schema"] if live["enforce_parameter_schema"] else {}
        limit = live["global_concurrency_limit"]
        return {
            "deployment_id": live["id"],
            "entrypoint": live["entrypoint"] or "",
            "work_pool": live["work_pool_name"] or "",
            "description": live["description"] or "",
            "parameters": live["parameters"],
            "parameter_schema": schema or {},
            "job_variables": live["job_variables"],
            "concurrency_limit": limit["limit"] if limit else None,
            "tags": live["tags"],
            "release": live["version"],
        }

    def remove(self, recorded: FlowDeploymentRecord) -> None:
        """Delete the deployment."""
        with PrefectApi(recorded.connection, START_TIMEOUT_S) as prefect:
            live = prefect.get(_path(recorded))
            if live is not None:
                prefect.delete(f"/deployments/{live['id']}")


class FlowDeployment(Resource, module="marketlake", name="FlowDeployment"):
    """A deployment of a flow."""

    deployment_id: pulumi.Output[str]
    flow: pulumi.Output[str]
    deployment: pulumi.Output[str]

    def __init__(
        self, name: str, args: FlowDeploymentArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the deployment under the resource name `name`."""
        properties = {**args, "version": FlowDeploymentProvider.VERSION, "deployment_id": None}
        super().__init__(FlowDeploymentProvider(), name, properties, opts)


def _path(recorded: FlowDeploymentRecord) -> str:
    return f"/deployments/name/{quote(recorded.flow, safe='')}/{quote(recorded.deployment, safe='')}"
