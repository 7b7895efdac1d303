"""What data is lost when a resource is deleted, or replaced by a new one."""

from collections.abc import Callable, Mapping
from typing import Any

from policies.rules.reading import at, pairs_at

Inputs = Mapping[str, Any]

_OURS = "pulumi-python:dynamic/marketlake"


def data_loss(resource_type: str, inputs: Inputs) -> str | None:
    """Return what is lost with a resource of these inputs; None for one that holds no data.

    A statement of what the providers do: those of components/providers, and the clouds' defaults for theirs.
    """
    tell = _DATA_LOSS.get(resource_type)
    return tell(inputs) if tell else None


def _bucket(inputs: Inputs) -> str:
    if inputs.get("force_destroy"):
        return "all objects in the bucket, all versions"
    return "nothing while it holds objects: then its deletion fails"


def _process(inputs: Inputs) -> str | None:
    volumes = sorted(name for name, _ in pairs_at(inputs, "volumes"))
    if not volumes:
        return None
    if inputs.get("keep_data"):
        return f"nothing: its volumes {', '.join(volumes)} are kept"
    return f"its volumes {', '.join(volumes)}, unless the data is kept (DATA=keep)"


def _whole_stack(inputs: Inputs) -> str:
    if inputs.get("keep_data"):
        return "everything in it but its volumes"
    return "everything in it, with all volumes, unless the data is kept (DATA=keep)"


def _stateful_set(inputs: Inputs) -> str:
    retention = at(inputs, "spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted")
    if retention == "Delete":
        return "its volumes"
    return "nothing but the time without its pods: its volumes stay"


def _aws_database(inputs: Inputs) -> str:
    if inputs.get("skipFinalSnapshot"):
        return "the database, with no last snapshot"
    return "the database; a last snapshot is made"


def _always(text: str) -> Callable[[Inputs], str]:
    return lambda _inputs: text


_AWS_BUCKET = _always("its objects, if forceDestroy is set; else its deletion fails while it holds some")

_DATA_LOSS: Mapping[str, Callable[[Inputs], str | None]] = {
    f"{_OURS}:Bucket": _bucket,
    f"{_OURS}:Topic": _always("all events in the topic, and its consumers' positions"),
    f"{_OURS}:SqlDatabase": _always("the database with all its tables"),
    f"{_OURS}:Process": _process,
    f"{_OURS}:Supervisor": _whole_stack,
    f"{_OURS}:ClusterNamespace": _whole_stack,
    f"{_OURS}:GeneratedSecret": _always("the secret: whoever uses it gets a new one"),
    f"{_OURS}:WorkPool": _always("runs that wait in the pool"),
    "kubernetes:apps/v1:StatefulSet": _stateful_set,
    "kubernetes:apps/v1:Deployment": _always("nothing but the time without its pods"),
    "kubernetes:core/v1:PersistentVolumeClaim": _always(
        "the volume's content, if its class reclaims by Delete"
    ),
    "kubernetes:core/v1:Namespace": _always("everything in the namespace"),
    "aws:s3/bucket:Bucket": _AWS_BUCKET,
    "aws:s3/bucketV2:BucketV2": _AWS_BUCKET,
    "aws:rds/instance:Instance": _aws_database,
    "aws:rds/cluster:Cluster": _aws_database,
    "aws:ebs/volume:Volume": _always("the volume's content"),
}
