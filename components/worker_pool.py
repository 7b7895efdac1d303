"""The worker pools: one runs Prefect's flow runs, one carries out the tasks of collections."""

from marketlake.settings import PLATFORM_FILE_VARIABLE, HealthKind

from components.service import Distribution, File, Health, Resources, Service, Stop, Volume
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
            "PREFECT_WORKER_QUERY_SECONDS": "2",
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
