"""Nobody may more than he has to: network, identity, rights of containers; and nothing is without its bounds."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

from tests.conformance.holdings import SERVICES
from tests.kubernetes.live import NAMESPACE, SERVICE, LiveCluster, Object, processes_of
from toolchain.images import locate

LASTING = {
    "database",
    "event-bus",
    "log-store",
    "metrics-store",
    "object-store",
    "telemetry-collector",
    "trace-store",
}
"""Services whose volumes outlive their pods."""
WITH_TOKEN = {"telemetry-collector", "workflow-worker"}
"""Services that ask something of the cluster's API: for logs of pods, and for Jobs."""
CLUSTER_API = {"cluster-api": "10.96.0.1:443"}
_PROBE_S = 5
_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}$")


def probe(name: str, labels: Mapping[str, str], image: str, command: str = "sleep 600") -> Object:
    """A pod that does nothing until it is asked to, as the restricted standard wants it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/sh", "-c", command],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "resources": {"limits": {"cpu": "100m", "memory": "32Mi"}},
                }
            ],
        },
    }


@contextmanager
def running(
    platform: LiveCluster,
    name: str,
    *,
    namespace: str = NAMESPACE,
    labels: Mapping[str, str] | None = None,
    command: str = "sleep 600",
) -> Iterator[str]:
    """The name of a pod with a shell that runs."""
    pod = probe(name, labels or {}, locate("busybox").reference, command)
    where = f"--namespace={namespace}"
    platform.kubectl("apply", where, "--filename=-", stdin=json.dumps(pod))
    try:
        platform.kubectl("wait", where, f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
        yield name
    finally:
        platform.kubectl(
            "delete", where, f"pod/{name}", "--ignore-not-found", "--grace-period=0", "--force", check=False
        )


def reached(
    platform: LiveCluster, pod: str, addresses: Mapping[str, str], *, namespace: str = NAMESPACE
) -> set[str]:
    """The names of those addresses to which a pod can open a connection; they are tried at once."""
    tries = []
    for name, address in addresses.items():
        host, _, port = address.rpartition("//")[2].partition("/")[0].rpartition(":")
        opened = f"nc -w {_PROBE_S} {host} {port} </dev/null >/dev/null 2>&1"
        tries.append(f"({opened} && echo {name} open || echo {name} closed) &")
    script = "\n".join([*tries, "wait"])
    told = platform.kubectl("exec", f"--namespace={namespace}", pod, "--", "/bin/sh", "-c", script)
    ways = dict(line.split() for line in told.splitlines())
    assert set(ways) == set(addresses), told
    assert set(ways.values()) <= {"open", "closed"}, told
    return {name for name, way in ways.items() if way == "open"}


def targets(platform: LiveCluster) -> dict[str, str]:
    """The address of every service that listens."""
    return {service.name: service.address for service in platform.settings.services if service.address}


@pytest.fixture(scope="module")
def elsewhere(platform: LiveCluster) -> Iterator[str]:
    """A namespace that is none of the platform's."""
    name = "mlt-tests-elsewhere"
    platform.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        platform.kubectl("delete", "namespace", name, "--wait=false")


def test_a_pod_of_another_namespace_reaches_no_service(platform: LiveCluster, elsewhere: str) -> None:
    labels = {f"marketlake/calls-{name}": "true" for name in SERVICES}
    with running(platform, "stranger", namespace=elsewhere, labels=labels) as pod:
        assert reached(platform, pod, CLUSTER_API, namespace=elsewhere), "the probe itself reaches nothing"
        assert reached(platform, pod, targets(platform), namespace=elsewhere) == set()


def test_a_pod_of_the_namespace_without_a_callers_label_reaches_nothing(platform: LiveCluster) -> None:
    with running(platform, "unnamed") as pod:
        assert reached(platform, pod, targets(platform) | CLUSTER_API) == set(), "nor the cluster's API"


def test_a_callers_label_opens_the_way_in_only_for_who_has_a_way_out(platform: LiveCluster) -> None:
    labels = {"marketlake/calls-database": "true"}
    with running(platform, "labelled", labels=labels) as pod:
        assert reached(platform, pod, {"database": targets(platform)["database"]}) == set()


def test_a_service_reaches_what_it_calls_and_nothing_else(platform: LiveCluster) -> None:
    """The ways of a collection worker and of the telemetry collector, taken by pods with their labels."""
    addresses = targets(platform)
    expected = {
        "workflow-worker": {"workflow-engine"},
        "telemetry-collector": {"log-store", "metrics-store", "trace-store"},
    }
    for service, open_ways in expected.items():
        template = platform.pods(service)[0]["metadata"]["labels"]
        labels = {key: value for key, value in template.items() if key.startswith("marketlake/")}
        # A pod that another service's selector picks would be given requests; it runs for seconds and has no port.
        with running(platform, f"as-{service}", labels=labels) as pod:
            assert reached(platform, pod, addresses) - {service} == open_ways, service


def test_the_ways_that_are_needed_are_open(platform: LiveCluster) -> None:
    """From inside the real pods that have an interpreter."""
    addresses = targets(platform)
    ways = {
        "collection-worker": (
            "database",
            "event-bus",
            "object-store",
            "workflow-engine",
            "telemetry-collector",
        ),
        "workflow-worker": ("workflow-engine",),
        "workflow-engine": ("database",),
    }
    for service, called in ways.items():
        pod = platform.pods(service)[0]["metadata"]["name"]
        for name in called:
            host, _, port = addresses[name].rpartition("//")[2].partition("/")[0].rpartition(":")
            line = f"import socket; socket.create_connection(('{host}', {port}), {_PROBE_S}); print('open')"
            told = platform.kubectl(
                "exec", f"--namespace={NAMESPACE}", pod, "--", "python3", "-c", line, check=False
            )
            assert told.strip().endswith("open"), (service, name, told)


def test_the_collector_may_not_reach_the_clusters_credentials(platform: LiveCluster) -> None:
    """Link-local addresses are where clouds hand out a node's credentials."""
    pod = platform.pods("collection-worker")[0]["metadata"]["name"]
    line = (
        "import socket\ntry:\n socket.create_connection(('169.254.169.254', 80), 3); print('open')\n"
        "except OSError: print('closed')"
    )
    told = platform.kubectl("exec", f"--namespace={NAMESPACE}", pod, "--", "python3", "-c", line)
    assert told.strip() == "closed"


def test_who_reads_a_venue_reaches_nothing_of_the_cluster_but_its_names(
    platform: LiveCluster, elsewhere: str
) -> None:
    """Whoever breaks into a worker by what a venue publishes stays where he is."""
    service = "collection-worker"
    (policy,) = [item for item in platform.objects("networkpolicies") if item["metadata"]["name"] == service]
    labels = policy["spec"]["podSelector"]["matchLabels"]
    node = next(
        address["address"]
        for address in platform.objects("nodes", namespace=None)[0]["status"]["addresses"]
        if address["type"] == "InternalIP"
    )
    with (
        running(platform, "listener", namespace=elsewhere, command="httpd -f -p 8080"),
        running(platform, "control", namespace=elsewhere) as control,
        running(platform, f"as-{service}", labels=labels) as reader,
    ):
        (listener,) = (
            pod["status"]["podIP"]
            for pod in platform.objects("pods", namespace=elsewhere)
            if pod["metadata"]["name"] == "listener"
        )
        closed = {
            "api-server": "10.96.0.1:443",
            "api-server-on-its-node": f"{node}:6443",
            "kubelet": f"{node}:10250",
            "pod-of-another-namespace": f"{listener}:8080",
        }
        open_to_control = reached(platform, control, closed, namespace=elsewhere)
        assert open_to_control == set(closed), "where nothing is closed, all can be reached"
        names = {"name-server": "10.96.0.10:53"}
        assert reached(platform, reader, closed | names) == set(names), "only names are asked for there"


@pytest.mark.parametrize(
    ("what", "place", "value", "complaint"),
    [
        (
            "root",
            ("securityContext",),
            {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}},
            "runAsNonRoot",
        ),
        ("a folder of the node", ("volumes",), [{"name": "host", "hostPath": {"path": "/"}}], "hostPath"),
        ("the node's network", ("hostNetwork",), True, "hostNetwork"),
        ("privileges", ("containers", 0, "securityContext"), {"privileged": True}, "privileged"),
    ],
)
def test_the_namespace_refuses_pods_that_want_more(
    platform: LiveCluster, what: str, place: tuple[Any, ...], value: Any, complaint: str
) -> None:
    pod = probe("greedy", {}, locate("busybox").reference)
    inner: Any = pod["spec"]
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    told = platform.kubectl(
        "apply",
        f"--namespace={NAMESPACE}",
        "--dry-run=server",
        "--filename=-",
        stdin=json.dumps(pod),
        check=False,
    )
    assert 'violates PodSecurity "restricted' in told, what
    assert complaint in told


def test_a_token_is_mounted_where_the_api_is_asked_and_nowhere_else(platform: LiveCluster) -> None:
    mounting = set()
    for pod in platform.pods():
        service = pod["metadata"]["labels"][SERVICE]
        assert pod["spec"]["serviceAccountName"] == service
        assert pod["spec"]["automountServiceAccountToken"] is False
        projected = [
            source
            for volume in pod["spec"]["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
            if "serviceAccountToken" in source
        ]
        if projected:
            mounting.add(service)
    assert mounting == WITH_TOKEN


def test_the_rights_of_the_service_accounts_are_the_least(platform: LiveCluster) -> None:
    def may(account: str, *question: str, namespace: str = NAMESPACE) -> bool:
        who = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
        told = platform.kubectl("auth", "can-i", *question, who, f"--namespace={namespace}", check=False)
        assert told.startswith(("yes", "no")), told
        return told.startswith("yes")

    assert may("workflow-worker", "create", "jobs.batch")
    assert may("telemetry-collector", "get", "pods", "--subresource=log")
    for account in SERVICES:
        assert not may(account, "get", "secrets"), account
        assert not may(account, "create", "pods"), account
        assert not may(account, "list", "nodes"), account
        assert not may(account, "get", "pods", namespace="kube-system"), account
    for account in SERVICES - WITH_TOKEN:
        assert not may(account, "list", "pods"), account
    assert not may("telemetry-collector", "create", "jobs.batch")


def test_every_container_is_bounded_pinned_and_without_rights(platform: LiveCluster) -> None:
    looked_at = 0
    for pod in platform.pods():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] > 0
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["priorityClassName"].startswith(NAMESPACE)
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            looked_at += 1
            where = f"{pod['metadata']['name']}/{container['name']}"
            assert _DIGEST.match(container["image"]), where
            for bound in ("requests", "limits"):
                assert set(container["resources"][bound]) >= {"cpu", "memory"}, where
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, where
            assert security["allowPrivilegeEscalation"] is False, where
            assert security["capabilities"] == {"drop": ["ALL"]}, where
            for variable in container.get("env", []):
                assert "value" not in variable or not any(
                    secret in variable["value"] for secret in platform.secrets()
                ), (where, variable["name"])
    assert looked_at >= len(SERVICES)


def test_no_process_of_a_pod_is_root_on_the_node(platform: LiveCluster) -> None:
    users: set[int] = set()
    for process in [process for pod in platform.pods() for process in processes_of(pod)]:
        with suppress(psutil.NoSuchProcess):  # probes come and go
            users.add(process.uids().real)
    assert users == {65532}


def test_every_service_that_can_be_asked_is_probed(platform: LiveCluster) -> None:
    """By a port or a heartbeat. Prefect's worker has neither; it ends, and is started anew, when it cannot go on."""
    for name in SERVICES - {"workflow-worker"}:
        main = platform.pods(name)[0]["spec"]["containers"][0]
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert kind in main, (name, kind)


def test_every_service_has_a_disruption_budget_and_data_that_lasts_a_claim(platform: LiveCluster) -> None:
    budgets = {item["metadata"]["name"] for item in platform.objects("poddisruptionbudgets")}
    assert budgets == SERVICES
    stateful = {item["metadata"]["name"]: item["spec"] for item in platform.objects("statefulsets")}
    assert set(stateful) == LASTING
    for name, spec in stateful.items():
        assert spec["persistentVolumeClaimRetentionPolicy"] == {
            "whenDeleted": "Retain",
            "whenScaled": "Retain",
        }, name
    claims = platform.objects("persistentvolumeclaims")
    assert {claim["metadata"]["name"].partition("-")[2].rpartition("-")[0] for claim in claims} == LASTING
    assert all(claim["status"]["phase"] == "Bound" for claim in claims)


def test_everything_of_the_stack_can_be_found_by_its_labels(platform: LiveCluster) -> None:
    for kind in (
        "deployments",
        "statefulsets",
        "services",
        "configmaps",
        "secrets",
        "networkpolicies",
        "roles",
    ):
        for item in platform.objects(kind):
            labels = item["metadata"].get("labels", {})
            if item["metadata"]["name"] == "kube-root-ca.crt":
                continue
            assert labels.get("app.kubernetes.io/part-of") == "marketlake", (kind, item["metadata"]["name"])
            assert labels.get("app.kubernetes.io/instance") == "throwaway"
            assert labels.get("app.kubernetes.io/managed-by") == "pulumi"
            assert labels.get("app.kubernetes.io/name")


def test_no_service_is_open_beyond_the_cluster(platform: LiveCluster) -> None:
    services = platform.objects("services")
    assert {item["spec"]["type"] for item in services} == {"ClusterIP"}
    assert not any("nodePort" in port for item in services for port in item["spec"]["ports"])
    assert platform.objects("ingresses") == []
