"""A Prefect work pool: the queue of a deployment's runs."""

from collections.abc import Mapping
from typing import Any, ClassVar, NotRequired, TypedDict

import pulumi
from pulumi.dynamic import Resource
from pydantic import Field

from components.providers.base import Inputs, Provider, Record
from components.providers.connections import WorkflowEngineConnection, WorkflowEngineConnectionArgs
from components.providers.prefect_api import PrefectApi
from components.providers.waiting import REFRESH_TIMEOUT_S, START_TIMEOUT_S


class WorkPoolArgs(TypedDict):
    """Arguments of a work pool."""

    connection: pulumi.Input[WorkflowEngineConnectionArgs]
    work_pool: pulumi.Input[str]
    """The work pool's name."""
    worker_type: NotRequired[pulumi.Input[str]]
    """Optional: kind of worker that serves it, ``process`` when omitted. Another means a new pool."""
    description: NotRequired[pulumi.Input[str]]
    concurrency_limit: NotRequired[pulumi.Input[int]]
    """Optional: runs at the same time; unlimited when omitted."""
    base_job_template: NotRequired[pulumi.Input[dict[str, Any] | None]]
    """Optional: what its workers make a run's infrastructure from; when omitted, the worker registers its own."""


class WorkPoolRecord(Record):
    """What a work pool is found by, and whether its template was declared at all."""

    connection: WorkflowEngineConnection
    work_pool: str
    base_job_template: dict[str, Any] | None = None


class WorkPoolInputs(WorkPoolRecord, Inputs):
    """The resolved :class:`WorkPoolArgs`."""

    work_pool: str = Field(pattern=r"^[^/%&><]{1,200}$")
    worker_type: str = "process"
    description: str = ""
    concurrency_limit: int | None = Field(default=None, ge=1)


class WorkPoolProvider(Provider[WorkPoolInputs, WorkPoolRecord]):
    """Work pools, through Prefect's REST API.

    Where no base job template is declared, it is left to the worker, which registers the one of its own version when
    it starts.
    """

    VERSION: ClassVar[str] = "2"
    model = WorkPoolInputs
    record = WorkPoolRecord
    identity = frozenset({"work_pool"})

    def resource_id(self, declared: WorkPoolInputs) -> str:
        """The work pool's name."""
        return declared.work_pool

    def replaced_by(self, recorded: Mapping[str, Any], declared: Mapping[str, Any]) -> list[str]:
        """Prefect cannot change the kind of a pool's workers."""
        return ["worker_type"] if recorded.get("worker_type") != declared.get("worker_type") else []

    def apply(self, declared: WorkPoolInputs) -> Mapping[str, Any]:
        """Create or adopt the work pool, and resume a paused one."""
        settings: dict[str, Any] = {
            "description": declared.description,
            "concurrency_limit": declared.concurrency_limit,
            "is_paused": False,
        }
        if declared.base_job_template is not None:
            settings["base_job_template"] = declared.base_job_template
        with PrefectApi(declared.connection, START_TIMEOUT_S) as prefect:
            live = prefect.get(_path(declared))
            if live is not None and live["type"] != declared.worker_type:
                prefect.delete(_path(declared))
                live = None
            if live is None:
                new = {"name": declared.work_pool, "type": declared.worker_type, **settings}
                live = prefect.post("/work_pools/", new)
            else:
                prefect.patch(_path(declared), settings)
        return {}

    def observe(self, recorded: WorkPoolRecord) -> Mapping[str, Any] | None:
        """Return type, description and limit."""
        with PrefectApi(recorded.connection, REFRESH_TIMEOUT_S) as prefect:
            live = prefect.get(_path(recorded))
        if live is None:
            return None
        seen = {
            "worker_type": live["type"],
            "description": live["description"] or "",
            "concurrency_limit": live["concurrency_limit"],
        }
        if recorded.base_job_template is not None:
            seen["base_job_template"] = live["base_job_template"]
        return seen

    def remove(self, recorded: WorkPoolRecord) -> None:
        """Delete the work pool."""
        with PrefectApi(recorded.connection, START_TIMEOUT_S) as prefect:
            prefect.delete(_path(recorded))


class WorkPool(Resource, module="marketlake", name="WorkPool"):
    """A work pool."""

    work_pool: pulumi.Output[str]

    def __init__(self, name: str, args: WorkPoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the work pool `args["work_pool"]` under the resource name `name`."""
        super().__init__(WorkPoolProvider(), name, {**args, "version": WorkPoolProvider.VERSION}, opts)


def _path(recorded: WorkPoolRecord) -> str:
    return f"/work_pools/{recorded.work_pool}"
