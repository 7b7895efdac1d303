"""Images of services, and the values of a service's placeholders in its pod."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from components.kubernetes.layout import FILES, LOGS, TEMPORARY, VOLUMES
from components.rendering import PlaceholderValues
from components.service import Distribution, Service
from components.target import VendorImageArgs
from toolchain.images import Image, VendorImage, locate
from toolchain.images.catalogue import RUNTIME

ANYWHERE = "0.0.0.0"  # noqa: S104 - a pod's addresses are its own, and its network policy says who gets there
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The images of programs, and their registry."""

    registry: str | None = None
    vendor: Mapping[str, VendorImageArgs] | None = None

    def of(self, service: Service) -> Image:
        """Return the image of the service's program.

        Raises:
            ImageMissingError: it was not built yet; the message says how.
        """
        name = RUNTIME if isinstance(service.program, Distribution) else service.program.name
        return self.named(name)

    def named(self, name: str) -> Image:
        """Return the image of a program. Raises as :meth:`of`."""
        vendor = {program: VendorImage(**image) for program, image in (self.vendor or {}).items()}
        return locate(name, registry=self.registry, vendor=vendor)


def version_of(service: Service, image: Image) -> str:
    """Return the version of the service's program."""
    if isinstance(service.program, Distribution):
        return metadata.version(service.program.name)
    return image.version


def resolve(
    service: Service,
    image: Image,
    *,
    addresses: Mapping[str, str],
    inputs: Mapping[str, str],
    secrets: Mapping[str, str],
) -> PlaceholderValues:
    """Return the values of the placeholders of `service` in its pod.

    Args:
        service: what runs there.
        image: holds its program.
        addresses: ``host:port`` of each port for others; the number in the pod is the preferred one.
        inputs: values of its ``{input:…}``.
        secrets: values of its ``{secret:…}``.
    """
    ports = {name: port.preferred for name, port in service.ports.items()}
    return PlaceholderValues(
        bind=ANYWHERE,
        ports=ports,
        addresses=addresses,
        selves={name: f"{LOOPBACK}:{number}" for name, number in ports.items()},
        volumes={name: Path(VOLUMES / name) for name in service.volumes},
        files={name: Path(FILES / name) for name in service.files},
        executables={name: Path(path) for name, path in image.executables.items()},
        roots={name: Path(folder) for name, folder in image.roots.items()},
        logs=str(LOGS / "*.log"),
        temporary=Path(TEMPORARY),
        inputs=inputs,
        secrets=secrets,
    )
