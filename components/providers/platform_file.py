"""The platform file: the command line reads from it where everything is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import pulumi
from pulumi.dynamic import Resource
from pydantic import Field

from components.providers.base import Inputs, Provider, Record, ResourceError
from components.supervision.files import private_folder, write_private


class PlatformFileArgs(TypedDict):
    """Arguments of a platform file."""

    path: pulumi.Input[str]
    settings: pulumi.Input[str]
    """A secret: the runtime's settings as JSON."""


class PlatformFileRecord(Record):
    """What a platform file is found by."""

    path: str


class PlatformFileInputs(PlatformFileRecord, Inputs):
    """The resolved :class:`PlatformFileArgs`."""

    settings: str = Field(repr=False)


class PlatformFileProvider(Provider[PlatformFileInputs, PlatformFileRecord]):
    """Files of mode 0600, replaced atomically."""

    VERSION: ClassVar[str] = "1"
    model = PlatformFileInputs
    record = PlatformFileRecord
    identity = frozenset({"path"})

    def resource_id(self, declared: PlatformFileInputs) -> str:
        """The file's path."""
        return declared.path

    def apply(self, declared: PlatformFileInputs) -> Mapping[str, Any]:
        """Write the file."""
        path = Path(declared.path)
        try:
            if not path.parent.exists():
                private_folder(path.parent)
            write_private(path, declared.settings)
        except OSError as error:
            raise ResourceError(
                f"cannot write the platform file {path}: {error.strerror or error}. Correct the folder's "
                "permissions or free some room, or name another place with MARKETLAKE_HOME."
            ) from error
        return {}

    def observe(self, recorded: PlatformFileRecord) -> Mapping[str, Any] | None:
        """Return the file's text; None if it does not exist, or if other users may read it."""
        path = Path(recorded.path)
        try:
            if path.stat().st_mode & 0o077:
                return None
            return {"settings": path.read_text(errors="replace")}
        except OSError:
            return None

    def remove(self, recorded: PlatformFileRecord) -> None:
        """Remove the file."""
        Path(recorded.path).unlink(missing_ok=True)


class PlatformFile(Resource, module="marketlake", name="PlatformFile"):
    """A platform file."""

    path: pulumi.Output[str]

    def __init__(self, name: str, args: PlatformFileArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the file `args["path"]` under the resource name `name`."""
        super().__init__(
            PlatformFileProvider(),
            name,
            {**args, "version": PlatformFileProvider.VERSION},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["settings"])
            ),
        )
