"""The worker pools: one runs Prefect's flows, one runs the tasks of collections."""

from typing import Any, NotRequired, TypedDict

import pulumi
from marketlake.settings import PLATFORM_FILE_VARIABLE, HealthKind

from components.component import Component
from components.flow_job import base_job_template, worker_environment
from components.service import (
    Distribution,
    ExternalServer,
    File,
    Health,
    Importance,
    Resources,
    Service,
    Stop,
    Volume,
)
from components.target import ExternalServerArgs, TargetArgs, external_servers
from components.targets import target_of
from components.workflow_engine import QUIET_PREFECT

_SETTINGS = {"platform.json": File(text="{secret:settings}", secret=True)}
_FOUND_BY = {PLATFORM_FILE_VARIABLE: "{file:platform.json}", "MARKETLAKE_ENVIRONMENT": "{input:environment}"}


_LAKE = ("database", "event-bus", "object-store", "telemetry-collector", "workflow-engine")
"""What a collection worker works with."""
_REQUESTS = ("database", "telemetry-collector", "workflow-engine")
"""What a run of the flow works with, which requests a collection and no more."""
_AUTH = "PREFECT_API_AUTH_STRING"
PROCESS, KUBERNETES = "process", "kubernetes"
"""Prefect's types of workers: one starts a run as its child process, the other as a Job."""


def flow_run_service(
    *, memory_mib: int = 512, cpu_millis: int = 100, calls_external: tuple[ExternalServer, ...] = ()
) -> Service:
    """One run of a flow.

    Inputs: ``environment``, ``api-url``. Secrets: ``settings`` (the platform file's text), ``auth``.
    """
    return Service(
        name="workflow-run",
        program=Distribution(name="prefect"),
        argv=("{bin:prefect}", "flow-run", "execute"),
        files=_SETTINGS,
        environment={**QUIET_PREFECT, **_FOUND_BY, "PREFECT_API_URL": "{input:api-url}"},
        secret_environment={_AUTH: "{secret:auth}"},
        health=Health(kind=HealthKind.PROCESS),
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        stop=Stop(grace_s=15),
        importance=Importance.WORK,
        calls=_REQUESTS,
        calls_external=calls_external,
    )


def workflow_worker_service(
    *,
    worker_type: str = PROCESS,
    memory_mib: int = 512,
    cpu_millis: int = 100,
    calls_external: tuple[ExternalServer, ...] = (),
) -> Service:
    """A Prefect worker that starts each flow run as a process, or as a job, of its own.

    Inputs: ``environment``, ``work-pool``, ``api-url``. Secrets: ``settings`` (the platform file's text), ``auth``.
    """
    run = flow_run_service(memory_mib=memory_mib, cpu_millis=cpu_millis, calls_external=calls_external)
    return Service(
        name="workflow-worker",
        program=Distribution(name="prefect"),
        argv=(
            "{bin:prefect}",
            "worker",
            "start",
            f"--type={worker_type}",
            "--pool={input:work-pool}",
            "--name=local",
        ),
        volumes={"home": Volume(size_mib=64, scratch=True)},
        files=_SETTINGS,
        environment={
            **QUIET_PREFECT,
            **_FOUND_BY,
            "PREFECT_HOME": "{volume:home}",
            "PREFECT_API_URL": "{input:api-url}",
            "PREFECT_WORKER_QUERY_SECONDS": "5",
            **(worker_environment(run.name, _AUTH) if worker_type == KUBERNETES else {}),
        },
        secret_environment={_AUTH: "{secret:auth}"},
        health=Health(kind=HealthKind.PROCESS),
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        stop=Stop(grace_s=15),
        calls=("workflow-engine",),
        runs=run,
    )


def collection_worker_service(
    *,
    replicas: int = 2,
    max_replicas: int | None = None,
    memory_mib: int = 768,
    cpu_millis: int = 200,
    calls_external: tuple[ExternalServer, ...] = (),
) -> Service:
    """The workers of collections: each takes tasks from the event bus.

    Inputs: ``environment``. Secrets: ``settings`` (the platform file's text).
    """
    return Service(
        name="collection-worker",
        program=Distribution(name="marketlake"),
        argv=("{bin:marketlake}", "worker"),
        files=_SETTINGS,
        environment=_FOUND_BY,
        health=Health(kind=HealthKind.PROCESS),
        heartbeat="MARKETLAKE_HEARTBEAT_FILE",
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        stop=Stop(grace_s=15),
        replicas=replicas,
        max_replicas=max_replicas,
        importance=Importance.WORK,
        calls=_LAKE,
        calls_external=calls_external,
    )


class FlowRuns(TypedDict):
    """How runs of flows are started."""

    worker_type: str
    """Type of Prefect's worker."""
    base_job_template: NotRequired[pulumi.Output[dict[str, Any]]]
    """The base job template of such a worker; omitted where it needs none."""


def flow_runs(
    target: TargetArgs,
    *,
    environment: pulumi.Input[str],
    api_url: pulumi.Input[str],
    memory_mib: int = 512,
    cpu_millis: int = 100,
) -> FlowRuns:
    """How runs are started in a place: as Jobs where it knows such, as child processes of the worker elsewhere."""
    inputs = {"environment": environment, "api-url": api_url}
    manifest = target_of(target).job(
        flow_run_service(memory_mib=memory_mib, cpu_millis=cpu_millis), inputs=inputs
    )
    if manifest is None:
        return {"worker_type": PROCESS}
    return {"worker_type": KUBERNETES, "base_job_template": manifest.apply(base_job_template)}


class WorkflowWorkerArgs(TypedDict):
    """Arguments of the worker that runs Prefect's flows."""

    target: TargetArgs
    """Where it runs."""
    environment: pulumi.Input[str]
    """Name of the environment."""
    settings: pulumi.Input[str]
    """A secret: the runtime's settings as JSON."""
    work_pool: pulumi.Input[str]
    """Name of Prefect's work pool that it takes runs from."""
    worker_type: NotRequired[str]
    """Optional: type of Prefect's worker, ``process`` when omitted."""
    api_url: pulumi.Input[str]
    """Prefect's API: it ends in ``/api``."""
    auth_string: pulumi.Input[str]
    """A secret: ``user:password`` for HTTP basic authentication."""
    memory_mib: NotRequired[int]
    """Optional: 512 when omitted."""
    cpu_millis: NotRequired[int]
    """Optional: thousandths of a core that are set aside for it, where the target can; 100 when omitted."""
    external_servers: NotRequired[list[ExternalServerArgs]]
    """Optional: servers outside the platform that runs connect to, venues included; none when omitted."""


class WorkflowWorker(Component):
    """A Prefect worker."""

    service: pulumi.Output[dict[str, str]]
    """How `marketlake status` finds it."""

    def __init__(
        self, name: str, args: WorkflowWorkerArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the worker."""
        super().__init__(name, opts)
        deployed = target_of(args["target"]).deploy(
            name,
            workflow_worker_service(
                worker_type=args.get("worker_type", PROCESS),
                memory_mib=args.get("memory_mib", 512),
                cpu_millis=args.get("cpu_millis", 100),
                calls_external=external_servers(args.get("external_servers", [])),
            ),
            inputs={
                "environment": args["environment"],
                "work-pool": args["work_pool"],
                "api-url": args["api_url"],
            },
            secrets={"settings": args["settings"], "auth": args["auth_string"]},
            opts=self._child(),
        )
        self.service = deployed.info
        self.register_outputs({"service": self.service})


class CollectionWorkersArgs(TypedDict):
    """Arguments of the collection workers."""

    target: TargetArgs
    """Where they run."""
    environment: pulumi.Input[str]
    """Name of the environment."""
    settings: pulumi.Input[str]
    """A secret: the runtime's settings as JSON."""
    replicas: NotRequired[int]
    """Optional: how many; 2 when omitted."""
    max_replicas: NotRequired[int | None]
    """Optional: how many there may be under load, where that can be measured; `replicas` when omitted."""
    memory_mib: NotRequired[int]
    """Optional: of each; 768 when omitted."""
    cpu_millis: NotRequired[int]
    """Optional: thousandths of a core that are set aside for each, where the target can; 200 when omitted."""
    external_servers: NotRequired[list[ExternalServerArgs]]
    """Optional: servers outside the platform that they connect to, venues included; none when omitted."""


class CollectionWorkers(Component):
    """The workers that copy and parse files."""

    service: pulumi.Output[dict[str, str]]
    """How `marketlake status` finds them."""

    def __init__(
        self, name: str, args: CollectionWorkersArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the workers."""
        super().__init__(name, opts)
        deployed = target_of(args["target"]).deploy(
            name,
            collection_worker_service(
                replicas=args.get("replicas", 2),
                max_replicas=args.get("max_replicas"),
                memory_mib=args.get("memory_mib", 768),
                cpu_millis=args.get("cpu_millis", 200),
                calls_external=external_servers(args.get("external_servers", [])),
            ),
            inputs={"environment": args["environment"]},
            secrets={"settings": args["settings"]},
            opts=self._child(),
        )
        self.service = deployed.info
        self.register_outputs({"service": self.service})
