"""Resources that keep every rule, to be changed by tests until they break one."""

import copy
from collections.abc import Callable
from typing import Any

from policies.rules import Declared, marks
from policies.rules.buckets import OURS

DIGEST = "sha256:" + "0a" * 32
LABELS = {
    "app.kubernetes.io/name": "web",
    "app.kubernetes.io/instance": "test",
    "app.kubernetes.io/part-of": "marketlake",
    "app.kubernetes.io/managed-by": "pulumi",
}
TAGS = {"name": "lake", "instance": "test", "part-of": "marketlake", "managed-by": "pulumi"}
Change = Callable[[Any], None]


def container() -> dict[str, Any]:
    return {
        "name": "web",
        "image": f"registry.example.com/web@{DIGEST}",
        "command": ["/opt/web", "--password-file=/etc/web/password"],
        "env": [
            {"name": "HOME", "value": "/tmp"},
            {"name": "TOKEN_LIFETIME", "value": "3600"},
            {"name": "DATABASE_PASSWORD_FILE", "value": "/etc/web/password"},
            {"name": "DATABASE_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "web", "key": "password"}}},
            {"name": "AUTH_SECRET_NAME", "value": "web"},
            {"name": "AUTH_SECRET_KEY", "value": "env.AUTH"},
            {"name": "PUBLIC_KEY", "value": "ssh-ed25519 AAAA"},
            {"name": "TLS_KEY", "value": "/etc/web/tls.key"},
            {"name": "STORE", "value": "http://10.96.0.7:9000"},
        ],
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "64Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            "readOnlyRootFilesystem": True,
        },
    }


def pod() -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532.0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [container()],
        "containers": [container()],
        "volumes": [
            {"name": "temporary", "emptyDir": {}},
            {"name": "files", "projected": {"sources": [{"configMap": {"name": "web"}}]}},
        ],
    }


def metadata() -> dict[str, Any]:
    return {"name": "web", "namespace": "lake", "labels": dict(LABELS), "annotations": {}}


def deployment() -> dict[str, Any]:
    return {"metadata": metadata(), "spec": {"template": {"metadata": metadata(), "spec": pod()}}}


def stateful_set() -> dict[str, Any]:
    claim = {"metadata": {"name": "data", "annotations": {marks.BACKUP: "none: can be collected again"}}}
    sample = deployment()
    sample["spec"]["volumeClaimTemplates"] = [claim]
    return sample


def cron_job() -> dict[str, Any]:
    return {
        "metadata": metadata(),
        "spec": {"jobTemplate": {"spec": {"template": {"metadata": metadata(), "spec": pod()}}}},
    }


def work_pool() -> dict[str, Any]:
    job = {"job_manifest": {"spec": {"template": {"metadata": metadata(), "spec": pod()}}}}
    return {"work_pool": "marketlake", "base_job_template": {"job_configuration": job}}


def network_policy() -> dict[str, Any]:
    way = {"from": [{"podSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 80}]}
    world = {
        "cidr": "0.0.0.0/0",
        "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"],
    }
    out = {"to": [{"ipBlock": world}, {"ipBlock": {"cidr": "10.20.0.0/16"}}], "ports": [{"port": 443}]}
    spec = {"podSelector": {"matchLabels": {"x": "y"}}, "ingress": [way], "egress": [out]}
    return {"metadata": metadata(), "spec": spec}


def closing_policy() -> dict[str, Any]:
    return {"metadata": metadata(), "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}


GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "kubernetes:apps/v1:Deployment": deployment,
    "kubernetes:apps/v1:StatefulSet": stateful_set,
    "kubernetes:batch/v1:CronJob": cron_job,
    "kubernetes:core/v1:Pod": lambda: {"metadata": metadata(), "spec": pod()},
    "kubernetes:core/v1:ServiceAccount": lambda: {
        "metadata": metadata(),
        "automountServiceAccountToken": False,
    },
    "kubernetes:core/v1:Service": lambda: {"metadata": metadata(), "spec": {"type": "ClusterIP"}},
    "kubernetes:core/v1:ConfigMap": lambda: {
        "metadata": metadata(),
        "data": {
            "web.yaml": "store:\n  password: ${env:STORE_PASSWORD}\n  token_file: /etc/web/token\n  use_token: false\n",
            "database.conf": "password_encryption = scram-sha-256\nurl = postgresql://web@db:5432/web\n",
        },
    },
    "kubernetes:core/v1:PersistentVolumeClaim": lambda: {
        "metadata": metadata() | {"annotations": {marks.BACKUP: "snapshots, daily, by the storage"}}
    },
    "kubernetes:core/v1:Namespace": lambda: {
        "metadata": metadata() | {"labels": LABELS | {"pod-security.kubernetes.io/enforce": "restricted"}}
    },
    "kubernetes:networking.k8s.io/v1:NetworkPolicy": network_policy,
    "kubernetes:networking.k8s.io/v1:Ingress": lambda: {
        "metadata": metadata() | {"annotations": {marks.EXPOSED: "the page for the desk"}}
    },
    "kubernetes:rbac.authorization.k8s.io/v1:Role": lambda: {
        "metadata": metadata(),
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    },
    "kubernetes:storage.k8s.io/v1:StorageClass": lambda: {
        "metadata": metadata(),
        "provisioner": "ebs.csi.aws.com",
        "parameters": {"encrypted": "true"},
    },
    "pulumi-python:dynamic/marketlake:WorkPool": work_pool,
    "pulumi-python:dynamic/marketlake:Process": lambda: {
        "environment": {"HOME": "/srv", "PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    },
    OURS: lambda: {"bucket": "landing", "access": "private", "versioning": True, "tags": {}},
    "aws:s3/bucket:Bucket": lambda: {"bucket": "lake", "acl": "private", "tags": dict(TAGS)},
    "aws:s3/bucketAcl:BucketAcl": lambda: {"bucket": "lake", "acl": "private"},
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": lambda: {
        "bucket": "lake",
        "blockPublicAcls": True,
        "blockPublicPolicy": True,
        "ignorePublicAcls": True,
        "restrictPublicBuckets": True,
    },
    "aws:rds/instance:Instance": lambda: {
        "storageEncrypted": True,
        "backupRetentionPeriod": 14,
        "publiclyAccessible": False,
        "tags": dict(TAGS),
    },
    "aws:ebs/volume:Volume": lambda: {"encrypted": True, "tags": dict(TAGS)},
}
"""By type, what makes such a resource that keeps every rule."""


def changed(resource_type: str, *path: Any, value: Any) -> dict[str, Any]:
    """A good resource with one thing changed; a value of ``...`` leaves it out, a last step of None appends."""
    properties = copy.deepcopy(GOOD[resource_type]())
    place: Any = properties
    for step in path[:-1]:
        place = place[step]
    if path[-1] is None:
        place.append(value)
    elif value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return properties


def resource(resource_type: str, properties: dict[str, Any] | None = None, **more: Any) -> Declared:
    """A resource of a stack, good unless told otherwise."""
    name = more.pop("name", "one")
    return Declared(
        urn=f"urn:pulumi:test::marketlake::{resource_type}::{name}",
        type=resource_type,
        name=name,
        properties=GOOD[resource_type]() if properties is None else properties,
        **more,
    )
