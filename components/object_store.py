"""The object store: MinIO, which speaks S3."""

from typing import NotRequired, TypedDict

import pulumi
from marketlake.settings import HealthKind

from components.component import Component, known_after
from components.providers.secret import GeneratedSecret
from components.service import File, Health, Importance, Port, Resources, Service, Tool, Volume
from components.target import TargetArgs
from components.targets import target_of

ROOT_USER = "marketlake"
REGION = "us-east-1"


def object_store_service(*, memory_mib: int = 512, volume_mib: int = 4096) -> Service:
    """A MinIO server on one drive. Secrets: ``root-password``."""
    return Service(
        name="object-store",
        program=Tool(name="minio"),
        argv=(
            "{bin:minio}",
            "server",
            "--quiet",
            "--address={bind}:{port:api}",
            "--console-address={bind}:{port:console}",
            "{volume:data}",
        ),
        ports={
            "api": Port(preferred=9000, scheme="http"),
            "console": Port(preferred=9001, scheme="http"),
        },
        volumes={"data": Volume(size_mib=volume_mib)},
        files={"root-password": File(text="{secret:root-password}", secret=True)},
        environment={
            "MINIO_ROOT_USER": ROOT_USER,
            "MINIO_ROOT_PASSWORD_FILE": "{file:root-password}",
            "MINIO_REGION": REGION,
            "MINIO_UPDATE": "off",
            "MINIO_BROWSER_REDIRECT": "off",
            "GOMEMLIMIT": "{memory:90}MiB",
        },
        health=Health(kind=HealthKind.HTTP, port="api", path="/minio/health/ready"),
        resources=Resources(memory_mib=memory_mib, cpu_millis=100),
        importance=Importance.DATA,
        console=("console", "/"),
    )


class ObjectStoreArgs(TypedDict):
    """What is declared of the object store."""

    target: TargetArgs
    """Where it runs."""
    memory_mib: NotRequired[int]
    """Optional: 512 when omitted."""
    volume_mib: NotRequired[int]
    """Optional: room that has to be free at first; 4096 when omitted."""


class ObjectStore(Component):
    """A MinIO server."""

    endpoint: pulumi.Output[str]
    """Base URL of its S3 API."""
    region: pulumi.Output[str]
    access_key_id: pulumi.Output[str]
    secret_access_key: pulumi.Output[str]
    """A secret."""
    service: pulumi.Output[dict[str, str]]
    """How `marketlake status` finds it."""

    def __init__(self, name: str, args: ObjectStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the server."""
        super().__init__(name, opts)
        password = GeneratedSecret(f"{name}-root-password", opts=self._child())
        deployed = target_of(args["target"]).deploy(
            name,
            object_store_service(
                memory_mib=args.get("memory_mib", 512), volume_mib=args.get("volume_mib", 4096)
            ),
            inputs={},
            secrets={"root-password": password.value},
            opts=self._child(),
        )
        self.endpoint = deployed.url("api")
        self.region = pulumi.Output.from_input(REGION)
        self.access_key_id = pulumi.Output.from_input(ROOT_USER)
        self.secret_access_key = known_after(password.value, deployed.resource)
        self.service = deployed.info
        self.register_outputs(
            {
                "endpoint": self.endpoint,
                "region": self.region,
                "access_key_id": self.access_key_id,
                "secret_access_key": self.secret_access_key,
                "service": self.service,
            }
        )
