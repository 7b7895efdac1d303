"""What a killed `up` began to create in a cluster: Pulumi knows that it began, and not how it ended."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OF_KUBERNETES = "kubernetes:"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingCreate:
    """One resource."""

    urn: str
    inputs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.urn.rpartition("::")[2]

    @property
    def is_of_the_cluster(self) -> bool:
        """It is an object of Kubernetes' own kinds with a name, so one can look whether it is there."""
        kind = self.urn.split("::")[2].rpartition("$")[2]
        named = isinstance(self.inputs.get("metadata"), dict) and isinstance(
            self.inputs["metadata"].get("name"), str
        )
        return kind.startswith(_OF_KUBERNETES) and named and "apiVersion" in self.inputs


def pending_creates(state: Path) -> list[PendingCreate]:
    """Those in a stack's state; none if it cannot be read, which Pulumi will say itself."""
    try:
        latest = json.loads(state.read_text())["checkpoint"]["latest"] or {}
    except (OSError, ValueError, KeyError):
        return []
    return [
        PendingCreate(urn=operation["resource"]["urn"], inputs=operation["resource"].get("inputs") or {})
        for operation in latest.get("pending_operations") or []
        if operation.get("type") == "creating"
    ]
