"""What a preview reports as data that would be lost."""

from typing import Any

import pytest

from stacks.preview.data_loss import data_loss

OURS = "pulumi-python:dynamic/marketlake"
RETAIN = {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}}
DELETE = {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}}


@pytest.mark.parametrize(
    ("resource_type", "inputs", "told"),
    [
        (f"{OURS}:Bucket", {"force_destroy": True}, "all objects in the bucket, all versions"),
        (f"{OURS}:Bucket", {}, "nothing while it holds objects: then its deletion fails"),
        (
            f"{OURS}:Process",
            {"volumes": {"wal": 1, "data": 2}},
            "its volumes data, wal, unless the data is kept (DATA=keep)",
        ),
        (
            f"{OURS}:Process",
            {"volumes": {"data": 2}, "keep_data": True},
            "nothing: its volumes data are kept",
        ),
        (f"{OURS}:Process", {"volumes": {}}, None),
        (f"{OURS}:Supervisor", {"keep_data": True}, "everything in it but its volumes"),
        (
            f"{OURS}:ClusterNamespace",
            {},
            "everything in it, with all volumes, unless the data is kept (DATA=keep)",
        ),
        (f"{OURS}:Topic", {}, "all events in the topic, and its consumers' positions"),
        ("kubernetes:apps/v1:StatefulSet", DELETE, "its volumes"),
        (
            "kubernetes:apps/v1:StatefulSet",
            RETAIN,
            "nothing but the time without its pods: its volumes stay",
        ),
        (
            "kubernetes:apps/v1:StatefulSet",
            {"spec": "[secret]"},
            "nothing but the time without its pods: its volumes stay",
        ),
        ("aws:rds/instance:Instance", {"skipFinalSnapshot": True}, "the database, with no last snapshot"),
        ("aws:rds/cluster:Cluster", {}, "the database; a last snapshot is made"),
        ("kubernetes:core/v1:Service", {}, None),
    ],
)
def test_what_goes_with_a_resource(resource_type: str, inputs: dict[str, Any], told: str | None) -> None:
    assert data_loss(resource_type, inputs) == told
