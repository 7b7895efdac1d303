"""Declared exceptions: a resource may break a rule where it states the reason itself.

A mark is an annotation of a Kubernetes object, or a tag of a bucket or a cloud resource. Its text is the reason.
"""

from policies.rules.reading import UNKNOWN, Step, at
from policies.rules.rule import Properties

EXPOSED = "marketlake/exposed"
"""Why it is reached from outside the cluster, or without an identity."""
BACKUP = "marketlake/backup"
"""What saves its content, or ``none: <why>``."""
VERSIONS = "marketlake/versions"
"""``none: <why>``: why a bucket keeps no former versions."""
OPEN_EGRESS = "marketlake/open-egress"
"""Why it may connect to every address, those of the cluster included."""
API_ACCESS = "marketlake/api-access"
"""Why a pod is given a token for the cluster's API."""

_PLACES: tuple[tuple[Step, ...], ...] = (
    ("metadata", "annotations"),
    ("spec", "template", "metadata", "annotations"),
    ("tags",),
)


def is_declared(properties: Properties, mark: str) -> bool:
    """Whether a resource states a reason under `mark`. One that cannot be looked at yet may; so it counts."""
    found = [at(properties, *place, mark) for place in _PLACES]
    return any(value is UNKNOWN or (isinstance(value, str) and _gives_reason(value)) for value in found)


def _gives_reason(text: str) -> bool:
    """``none`` alone does not: who says that nothing is done has to say why."""
    kind, _, why = text.partition(":")
    return bool(text.strip()) and (kind.strip().lower() != "none" or bool(why.strip()))
