"""The worker pools: one runs Prefect's flow runs, one carries out the tasks of collections."""

from typing import NotRequired, TypedDict

import pulumi
from marketlake.settings import PLATFORM_FILE_VARIABLE, HealthKind

from components.component import Component
from components.service import Distribution, File, Health, Resources, Service, Stop, Volume
from components.target import TargetArgs
from components.targets import target_of
from components.workflow_engine import QUIET_PREFECT

_SETTINGS = {"platform.json": File(text="{secret:settings}", secret=True)}
_FOUND_BY = {PLATFORM_FILE_VARIABLE: "{file:platform.json}", "MARKETLAKE_ENVIRONMENT": "{input:environment}"}


def workflow_worker_service(*, memory_mib: int = 512) -> Service:
    """A Prefect worker that starts each flow run as a process of its own.

    Inputs: ``environment``, ``work-pool``, ``api-url``. Secrets: ``settings`` (the platform file's text), ``auth``.
    """
    return Service(
        name="workflow-worker",
        program=Distribution(name="prefect"),
        argv=(
            "{bin:prefect}",
            "worker",
            "start",
            "--type=process",
            "--pool={input:work-pool}",
            "--name=local",
        ),
        volumes={"home": Volume(size_mib=64)},
        files=_SETTINGS,
        environment={
            **QUIET_PREFECT,
            **_FOUND_BY,
            "PREFECT_HOME": "{volume:home}",
            "PREFECT_API_URL": "{input:api-url}",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        },
        secret_environment={"PREFECT_API_AUTH_STRING": "{secret:auth}"},
        health=Health(kind=HealthKind.PROCESS),
        resources=Resources(memory_mib=memory_mib),
        stop=Stop(grace_s=15),
    )


def collection_worker_service(*, replicas: int = 2, memory_mib: int = 768) -> Service:
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
        resources=Resources(memory_mib=memory_mib),
        stop=Stop(grace_s=15),
        replicas=replicas,
    )


class WorkflowWorkerArgs(TypedDict):
    """What is declared of the worker that runs Prefect's flows."""

    target: TargetArgs
    """Where it runs."""
    environment: pulumi.Input[str]
    """Name of the environment."""
    settings: pulumi.Input[str]
    """A secret: the runtime's settings as JSON."""
    work_pool: pulumi.Input[str]
    api_url: pulumi.Input[str]
    auth_string: pulumi.Input[str]
    """A secret."""
    memory_mib: NotRequired[int]
    """Optional: 512 when omitted."""


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
            workflow_worker_service(memory_mib=args.get("memory_mib", 512)),
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
    """What is declared of the workers of collections."""

    target: TargetArgs
    """Where they run."""
    environment: pulumi.Input[str]
    """Name of the environment."""
    settings: pulumi.Input[str]
    """A secret: the runtime's settings as JSON."""
    replicas: NotRequired[int]
    """Optional: how many; 2 when omitted."""
    memory_mib: NotRequired[int]
    """Optional: of each; 768 when omitted."""


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
                replicas=args.get("replicas", 2), memory_mib=args.get("memory_mib", 768)
            ),
            inputs={"environment": args["environment"]},
            secrets={"settings": args["settings"]},
            opts=self._child(),
        )
        self.service = deployed.info
        self.register_outputs({"service": self.service})
