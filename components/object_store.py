"""The object store: MinIO, which speaks S3."""

from typing import NotRequired, TypedDict
from urllib.parse import urlsplit

import pulumi
from marketlake.settings import HealthKind

from components.component import Component, known_after
from components.external import external_service
from components.providers.secret import GeneratedSecret
from components.service import File, Health, Importance, Port, Resources, Service, Tool, Volume
from components.target import TargetArgs
from components.targets import target_of

SERVICE = "object-store"
ROOT_USER = "marketlake"
REGION = "us-east-1"


def object_store_service(
    *, memory_mib: int = 512, volume_mib: int = 4096, storage_class: str | None = None, cpu_millis: int = 100
) -> Service:
    """A MinIO server on one drive. Secrets: ``root-password``."""
    return Service(
        name=SERVICE,
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
        volumes={
            "data": Volume(
                size_mib=volume_mib,
                backup="none: archive files are collected again from their venue, tables are refined again",
                storage_class=storage_class,
            )
        },
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
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        importance=Importance.DATA,
        console=("console", "/"),
    )


class ExternalObjectStoreArgs(TypedDict):
    """An external S3 service."""

    endpoint: pulumi.Input[str]
    """Base URL of its S3 API."""
    region: NotRequired[pulumi.Input[str]]
    """Optional: ``us-east-1`` when omitted."""
    access_key_id: pulumi.Input[str]
    """Of an identity that may create buckets."""
    secret_access_key: pulumi.Input[str]
    """A secret."""


class ObjectStoreArgs(TypedDict):
    """Arguments of the object store."""

    target: TargetArgs
    """Where it runs."""
    memory_mib: NotRequired[int]
    """Optional: 512 when omitted."""
    volume_mib: NotRequired[int]
    """Optional: room that has to be free at first; 4096 when omitted."""
    storage_class: NotRequired[str]
    """Optional: of its volume, where the target offers several; the usual one when omitted."""
    cpu_millis: NotRequired[int]
    """Optional: thousandths of a core that are set aside for it, where the target can; 100 when omitted."""
    external: NotRequired[ExternalObjectStoreArgs]
    """Optional: an S3 service to use instead of a server of our own."""


class ObjectStore(Component):
    """A MinIO server, or an external S3 service."""

    endpoint: pulumi.Output[str]
    """Base URL of its S3 API."""
    region: pulumi.Output[str]
    """What requests are signed for."""
    access_key_id: pulumi.Output[str]
    """Of an identity that may create buckets."""
    secret_access_key: pulumi.Output[str]
    """A secret."""
    service: pulumi.Output[dict[str, str]]
    """How `marketlake status` finds it."""

    def __init__(self, name: str, args: ObjectStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the server."""
        super().__init__(name, opts)
        if "external" in args:
            self._take(args["external"])
        else:
            self._deploy(name, args)
        self.register_outputs(
            {
                "endpoint": self.endpoint,
                "region": self.region,
                "access_key_id": self.access_key_id,
                "secret_access_key": self.secret_access_key,
                "service": self.service,
            }
        )

    def _deploy(self, name: str, args: ObjectStoreArgs) -> None:
        password = GeneratedSecret(f"{name}-root-password", opts=self._child())
        deployed = target_of(args["target"]).deploy(
            name,
            object_store_service(
                memory_mib=args.get("memory_mib", 512),
                volume_mib=args.get("volume_mib", 4096),
                storage_class=args.get("storage_class"),
                cpu_millis=args.get("cpu_millis", 100),
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

    def _take(self, external: ExternalObjectStoreArgs) -> None:
        self.endpoint = pulumi.Output.from_input(external["endpoint"])
        self.region = pulumi.Output.from_input(external.get("region", REGION))
        self.access_key_id = pulumi.Output.from_input(external["access_key_id"])
        self.secret_access_key = pulumi.Output.secret(external["secret_access_key"])
        self.service = external_service(
            SERVICE, address=self.endpoint, target=self.endpoint.apply(_address_of)
        )


def _address_of(url: str) -> str:
    """``host:port`` of a base URL."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
