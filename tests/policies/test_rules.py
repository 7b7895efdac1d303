"""Every rule: what breaks it, and the twin that differs only in keeping it."""

from typing import Any

import pytest

from policies.rules import RULES, PolicyError, marks, require, violations
from policies.rules.buckets import OURS
from policies.rules.reading import UNKNOWN
from tests.policies.samples import DIGEST, GOOD, LABELS, changed

DEPLOYMENT, STATEFUL_SET = "kubernetes:apps/v1:Deployment", "kubernetes:apps/v1:StatefulSet"
SERVICE, CONFIG_MAP = "kubernetes:core/v1:Service", "kubernetes:core/v1:ConfigMap"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
RDS = "aws:rds/instance:Instance"
ROLE = "kubernetes:rbac.authorization.k8s.io/v1:Role"
POD = ("spec", "template", "spec")
FLOW_RUN = ("base_job_template", "job_configuration", "job_manifest", *POD)
ONE = (*POD, "containers", 0)
SECURITY = (*ONE, "securityContext")

WORLD = ("spec", "egress", 0, "to", 0, "ipBlock")

BREAKS: list[tuple[str, str, tuple[Any, ...], Any, str]] = [
    ("no-privileges", DEPLOYMENT, (*SECURITY, "privileged"), True, "securityContext.privileged"),
    ("no-privileges", DEPLOYMENT, (*SECURITY, "allowPrivilegeEscalation"), ..., "allowPrivilegeEscalation"),
    ("no-privileges", DEPLOYMENT, (*SECURITY, "capabilities"), ..., "capabilities.drop"),
    ("no-privileges", DEPLOYMENT, (*SECURITY, "capabilities", "drop"), ["CHOWN"], "capabilities.drop"),
    ("no-privileges", DEPLOYMENT, (*SECURITY, "capabilities", "add"), ["SYS_ADMIN"], "adds SYS_ADMIN"),
    ("no-privileges", DEPLOYMENT, (*POD, "hostPID"), True, "spec.template.spec.hostPID"),
    ("no-privileges", DEPLOYMENT, (*POD, "hostIPC"), True, "hostIPC"),
    ("no-privileges", DEPLOYMENT, (*POD, "volumes", None), {"hostPath": {"path": "/"}}, "volumes[2]"),
    ("no-root", DEPLOYMENT, (*POD, "securityContext", "runAsUser"), 0.0, "is 0"),
    ("no-root", DEPLOYMENT, (*SECURITY, "runAsUser"), 0, "containers[0].securityContext.runAsUser"),
    ("no-root", DEPLOYMENT, (*POD, "securityContext", "runAsNonRoot"), ..., "initContainers[0]"),
    ("no-root", DEPLOYMENT, (*SECURITY, "runAsNonRoot"), False, "must be true"),
    ("system-call-filter", DEPLOYMENT, (*POD, "securityContext", "seccompProfile"), ..., "is None"),
    ("system-call-filter", DEPLOYMENT, (*SECURITY, "seccompProfile"), {"type": "Unconfined"}, "Unconfined"),
    ("read-only-root", DEPLOYMENT, (*SECURITY, "readOnlyRootFilesystem"), ..., "must be true"),
    ("resources-set", DEPLOYMENT, (*ONE, "resources"), ..., "requests.cpu: is missing"),
    ("resources-set", DEPLOYMENT, (*ONE, "resources", "limits", "memory"), ..., "limits.memory: is missing"),
    ("image-by-digest", DEPLOYMENT, (*ONE, "image"), "web:1.2", "'web:1.2'"),
    ("image-by-digest", DEPLOYMENT, (*ONE, "image"), f"web@{DIGEST}0", "64 hex digits"),
    ("image-by-digest", DEPLOYMENT, (*ONE, "image"), ..., "is None"),
    (
        "image-by-digest", "kubernetes:batch/v1:CronJob",
        ("spec", "jobTemplate", "spec", "template", "spec", "containers", 0, "image"), "web:latest", "'web:latest'",
    ),
    ("image-by-digest", "kubernetes:core/v1:Pod", ("spec", "initContainers", 0, "image"), "web", "initContainers[0]"),
    (
        "image-by-digest", "pulumi-python:dynamic/marketlake:WorkPool", (*FLOW_RUN, "containers", 0, "image"),
        "marketlake:1", "job_manifest",
    ),
    ("no-token", DEPLOYMENT, (*POD, "automountServiceAccountToken"), ..., "must be false"),
    (
        "no-token", DEPLOYMENT, (*POD, "volumes", 1, "projected", "sources", None),
        {"serviceAccountToken": {"path": "token"}}, "projected.sources[1]: mounts a token",
    ),
    ("no-token", "kubernetes:core/v1:ServiceAccount", ("automountServiceAccountToken",), ..., "must be false"),
    ("labelled", SERVICE, ("metadata", "labels"), ..., "app.kubernetes.io/name, app.kubernetes.io/instance"),
    ("labelled", DEPLOYMENT, ("spec", "template", "metadata", "labels"), {}, "spec.template.metadata.labels"),
    ("labelled", CONFIG_MAP, ("metadata", "labels", "app.kubernetes.io/part-of"), "", "part-of: missing"),
    ("not-exposed", SERVICE, ("spec", "type"), "LoadBalancer", "is LoadBalancer"),
    ("not-exposed", SERVICE, ("spec", "type"), "NodePort", "is NodePort"),
    ("not-exposed", SERVICE, ("spec", "externalIPs"), ["192.0.2.1"], "externalIPs[0]: is 192.0.2.1"),
    ("not-exposed", "kubernetes:networking.k8s.io/v1:Ingress", ("metadata", "annotations"), ..., "lets the world in"),
    ("not-exposed", DEPLOYMENT, (*POD, "hostNetwork"), True, "hostNetwork"),
    ("not-exposed", DEPLOYMENT, (*ONE, "ports", 0, "hostPort"), 80, "ports[0].hostPort"),
    ("not-exposed", POLICY, ("spec", "ingress", 0, "from"), ..., "lets everybody in"),
    ("not-exposed", POLICY, ("spec", "ingress", 0, "from", None), {"ipBlock": {"cidr": "::/0"}}, "from[1].ipBlock"),
    ("namespace-restricted", "kubernetes:core/v1:Namespace", ("metadata", "labels"), LABELS, "is None"),
    ("no-open-egress", POLICY, ("spec", "egress", 0, "to"), ..., "egress[0]: leads everywhere"),
    ("no-open-egress", POLICY, ("spec", "egress", None), {}, "egress[1]: leads everywhere"),
    ("no-open-egress", POLICY, ("spec", "egress", 0, "ports"), ..., "to[0]: leads to every port of the world"),
    ("no-open-egress", POLICY, (*WORLD, "except"), ..., "does not except 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 1"),
    ("no-open-egress", POLICY, (*WORLD, "except", 0), "10.0.0.0/9", "does not except 10.0.0.0/8, where clusters"),
    ("no-open-egress", POLICY, (*WORLD, "except", 4), "169.254.169.254/32", "does not except 169.254.0.0/16"),
    ("no-open-egress", POLICY, WORLD, {"cidr": "8.0.0.0/5"}, "does not except 10.0.0.0/8, where"),
    ("no-open-egress", POLICY, WORLD, {"cidr": "::/0"}, "does not except fc00::/7, fe80::/10, where"),
    ("no-open-egress", POLICY, ("spec", "egress", 0, "to", None), {"namespaceSelector": {}}, "leads to every pod"),
    (
        "namespace-restricted", "kubernetes:core/v1:Namespace",
        ("metadata", "labels", "pod-security.kubernetes.io/enforce"), "baseline", "is baseline",
    ),
    ("no-wildcard-role", ROLE, ("rules", 0, "verbs"), ["*"], "rules[0].verbs"),
    ("no-plain-secret", DEPLOYMENT, (*ONE, "env", None), {"name": "PGPASSWORD", "value": "hunter2"}, "PGPASSWORD has"),
    ("no-plain-secret", DEPLOYMENT, (*ONE, "env", None), {"name": "API_TOKEN", "value": "hunter2"}, "env[9]"),
    ("no-plain-secret", DEPLOYMENT, (*ONE, "env", None), {"name": "STORE_SECRET_KEY", "value": "hunter2"}, "env[9]"),
    ("no-plain-secret", DEPLOYMENT, (*ONE, "env", None), {"name": "PREFECT_API_AUTH_STRING", "value": "a:b"}, "env[9]"),
    ("no-plain-secret", DEPLOYMENT, (*ONE, "env", None), {"name": "DB", "value": "postgresql://a:b@db/x"}, "an URL"),
    ("no-plain-secret", DEPLOYMENT, (*ONE, "command", None), "--db-password=hunter2", "command[2]"),
    ("no-plain-secret", DEPLOYMENT, (*ONE, "args"), ["redis://:hunter2@cache"], "args[0]"),
    ("no-plain-secret", CONFIG_MAP, ("data", "web.yaml"), "a: 1\npassword: hunter2\n", "data.web.yaml: line 2"),
    ("no-plain-secret", CONFIG_MAP, ("data", "jaas"), 'x username="a" password="hunter2";', "line 1"),
    ("no-plain-secret", CONFIG_MAP, ("data", "url"), "amqp://a:hunter2@bus/", "an URL"),
    (
        "no-plain-secret", "pulumi-python:dynamic/marketlake:Process",
        ("environment", "MINIO_ROOT_PASSWORD"), "hunter2", "environment.MINIO_ROOT_PASSWORD",
    ),
    ("no-public-bucket", OURS, ("access",), "public-read", "is public-read"),
    ("no-public-bucket", OURS, ("access",), "custom", "is custom"),
    ("no-public-bucket", "aws:s3/bucket:Bucket", ("acl",), "public-read-write", "is public-read-write"),
    ("no-public-bucket", "aws:s3/bucketAcl:BucketAcl", ("acl",), "public-read", "is public-read"),
    ("no-public-bucket", BLOCK, ("restrictPublicBuckets",), ..., "restrictPublicBuckets: must be true"),
    ("bucket-versioned", OURS, ("versioning",), ..., "must be true"),
    ("backup-declared", CLAIM, ("metadata", "annotations"), ..., "marketlake/backup is missing"),
    ("backup-declared", CLAIM, ("metadata", "annotations", marks.BACKUP), "none", "marketlake/backup is missing"),
    ("backup-declared", CLAIM, ("metadata", "annotations", marks.BACKUP), "none: ", "marketlake/backup is missing"),
    (
        "backup-declared", STATEFUL_SET, ("spec", "volumeClaimTemplates", 0, "metadata", "annotations"), {},
        "volumeClaimTemplates[0]",
    ),
    ("backup-declared", RDS, ("backupRetentionPeriod",), 0, "at least 1 day"),
    ("encrypted-at-rest", RDS, ("storageEncrypted",), ..., "storageEncrypted: must be true"),
    ("encrypted-at-rest", "aws:ebs/volume:Volume", ("encrypted",), False, "encrypted: must be true"),
    ("encrypted-at-rest", "kubernetes:storage.k8s.io/v1:StorageClass", ("parameters",), ..., "parameters.encrypted"),
    ("no-public-database", RDS, ("publiclyAccessible",), True, "is true"),
    ("tagged", RDS, ("tags",), ..., "name, instance, part-of, managed-by: missing"),
    ("tagged", "aws:s3/bucket:Bucket", ("tags", "name"), "", "name: missing"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "resource_type", "path", "value", "told"), BREAKS)
def test_what_breaks_a_rule_is_told_with_its_place(
    rule: str, resource_type: str, path: tuple[Any, ...], value: Any, told: str
) -> None:
    found = list(violations(resource_type, changed(resource_type, *path, value=value)))
    assert {broken.id for broken, _ in found} == {rule}, "no other rule minds"
    assert any(told in str(violation) for _, violation in found)
    assert "hunter2" not in str(found), "a secret is named by its place alone"


@pytest.mark.parametrize("resource_type", GOOD)
def test_the_twin_that_keeps_every_rule_passes(resource_type: str) -> None:
    assert list(violations(resource_type, GOOD[resource_type]())) == []


def test_every_rule_about_one_resource_is_broken_above() -> None:
    assert {rule for rule, *_ in BREAKS} == {rule.id for rule in RULES if rule.resource}


def test_every_rule_says_what_why_and_what_to_do() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert all((rule.title, rule.why.endswith("."), rule.remedy.endswith(".")))
        assert (rule.resource is None) != (rule.stack is None)


DECLARED: list[tuple[str, tuple[Any, ...], Any, tuple[Any, ...], str]] = [
    (SERVICE, ("spec", "type"), "LoadBalancer", ("metadata", "annotations"), marks.EXPOSED),
    (DEPLOYMENT, (*POD, "hostNetwork"), True, ("spec", "template", "metadata", "annotations"), marks.EXPOSED),
    (POLICY, ("spec", "ingress", 0, "from"), [], ("metadata", "annotations"), marks.EXPOSED),
    (POLICY, ("spec", "egress", 0, "to"), [], ("metadata", "annotations"), marks.OPEN_EGRESS),
    (DEPLOYMENT, (*POD, "automountServiceAccountToken"), True, ("metadata", "annotations"), marks.API_ACCESS),
    (STATEFUL_SET, ("spec", "volumeClaimTemplates", 0, "metadata"), {}, ("metadata", "annotations"), marks.BACKUP),
    (OURS, ("access",), "public-read", ("tags",), marks.EXPOSED),
    (OURS, ("versioning",), False, ("tags",), marks.VERSIONS),
    (RDS, ("publiclyAccessible",), True, ("tags",), marks.EXPOSED),
]  # fmt: skip


@pytest.mark.parametrize(("resource_type", "path", "value", "place", "mark"), DECLARED)
@pytest.mark.parametrize(
    ("reason", "passes"),
    [("none: it may be", True), ("asked for by the desk", True), ("none", False), (" ", False)],
)
def test_what_is_declared_with_a_reason_passes(
    resource_type: str,
    path: tuple[Any, ...],
    value: Any,
    place: tuple[Any, ...],
    mark: str,
    reason: str,
    passes: bool,
) -> None:
    properties = changed(resource_type, *path, value=value)
    holder: Any = properties
    for step in place:
        holder = holder[step]
    holder[mark] = reason
    assert (list(violations(resource_type, properties)) == []) is passes


@pytest.mark.parametrize("unseen", [UNKNOWN, object(), "[secret]"], ids=["unknown", "an output", "redacted"])
@pytest.mark.parametrize("resource_type", GOOD)
def test_what_cannot_be_looked_at_is_neither_accepted_nor_refused(resource_type: str, unseen: Any) -> None:
    """Each property in turn, wherever it lies, may be known only later."""

    def places(value: Any, *path: Any) -> list[tuple[Any, ...]]:
        pairs = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        return [place for key, inner in pairs for place in ((*path, key), *places(inner, *path, key))]

    for path in places(GOOD[resource_type]()):
        properties = changed(resource_type, *path, value=unseen)
        assert list(violations(resource_type, properties)) == [], path


def test_a_component_that_breaks_a_mandatory_rule_is_told_the_place_and_the_remedy() -> None:
    properties = changed(DEPLOYMENT, *ONE, "image", value="web:1")
    (rule,) = (rule for rule in RULES if rule.id == "image-by-digest")
    with pytest.raises(PolicyError) as caught:
        require(DEPLOYMENT, properties, name="web")
    assert str(caught.value).splitlines() == [
        f"{DEPLOYMENT} web breaks the policies:",
        "  spec.template.spec.containers[0].image: is 'web:1'; it must end in @sha256:<64 hex digits>",
        f"    rule {rule.id}: {rule.title}. {rule.remedy}",
    ]
    require(DEPLOYMENT, GOOD[DEPLOYMENT]())


def test_an_advisory_rule_stops_no_component() -> None:
    require(RDS, changed(RDS, "tags", value={}))
