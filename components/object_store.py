"""The object store: MinIO, which speaks S3."""

from marketlake.settings import HealthKind

from components.service import File, Health, Port, Resources, Service, Tool, Volume

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
        resources=Resources(memory_mib=memory_mib),
        console=("console", "/"),
    )
