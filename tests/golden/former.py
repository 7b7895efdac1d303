"""``python -m tests.golden.former``: what a commit's stacks are recognised by, for later commits to be held against.

A page of `former/` holds, of each resource of an environment, its types and name, the class of its dynamic provider,
and those of its inputs of which a change makes Pulumi replace it.
"""

import base64
import json
import pickletools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.golden.plan import Planned, plan_of

FOLDER = Path(__file__).resolve().parent / "former"
ENVIRONMENTS = ("local", "onprem")
_DYNAMIC = (
    *(
        "folder",
        "name",
        "owner",
        "bucket",
        "namespace",
        "stack",
        "flow",
        "deployment",
        "path",
        "service",
        "user",
    ),
    *("topic", "partitions", "replication_factor", "work_pool", "worker_type"),
)
_KUBERNETES = {
    "kubernetes:apps/v1:StatefulSet": (
        "selector",
        "serviceName",
        "volumeClaimTemplates",
        "podManagementPolicy",
    ),
    "kubernetes:apps/v1:Deployment": ("selector",),
    "kubernetes:core/v1:PersistentVolumeClaim": ("storageClassName", "accessModes", "volumeName"),
}
"""What the API server lets nobody change, below `spec`."""


@dataclass(frozen=True, slots=True)
class Former:
    """A resource as it lies in a state."""

    urn: str
    provider: str | None
    """Its dynamic provider, as ``module:class``: what the state's pickle refers to."""
    kept: Mapping[str, Any]
    """Inputs that stay as they are as long as the resource does."""

    @property
    def type(self) -> str:
        """Its own type."""
        return self.urn.partition("::")[0].rpartition("$")[2]


def formers() -> list[Path]:
    """The pages, one of each commit and environment."""
    return sorted(FOLDER.glob("*.json"))


def read(page: Path) -> list[Former]:
    """Return the resources of a page."""
    return [Former(**one) for one in json.loads(page.read_text())]


def former_of(planned: Planned) -> Former:
    """Return what a planned resource is recognised by, once it is in a state."""
    pickled = planned.registered.provider
    return Former(planned.registered.urn, _referred(pickled) if pickled else None, _kept(planned))


def _referred(pickled: str) -> str:
    """The class that a pickle refers to, without loading it."""
    strings = [
        value for _, value, _ in pickletools.genops(base64.b64decode(pickled)) if isinstance(value, str)
    ]
    return ":".join(strings[:2])


def _kept(planned: Planned) -> dict[str, Any]:
    kind, inputs = planned.declared.type, planned.declared.properties
    if planned.registered.provider:
        return {key: inputs[key] for key in _DYNAMIC if key in inputs}
    if not kind.startswith("kubernetes:"):
        return {}
    metadata = {key: value for key, value in inputs["metadata"].items() if key in ("name", "namespace")}
    spec = {key: inputs["spec"][key] for key in _KUBERNETES.get(kind, ()) if key in inputs["spec"]}
    return {"metadata": metadata, **({"spec": spec} if spec else {})}


def _written(environment: str) -> Iterator[str]:
    for planned in plan_of(environment):
        yield json.dumps(asdict(former_of(planned)), sort_keys=True)


if __name__ == "__main__":
    (commit,) = sys.argv[1:]
    for one in ENVIRONMENTS:
        FOLDER.joinpath(f"{commit}-{one}.json").write_text("[\n" + ",\n".join(_written(one)) + "\n]\n")
