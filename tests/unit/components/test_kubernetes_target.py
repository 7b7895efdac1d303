"""What the kubernetes target asks of a cluster."""

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from pulumi.runtime import mocks

from components import database, event_bus, object_store, observability, worker_pool, workflow_engine
from components.kubernetes import images
from components.namespace import Namespace
from components.target import ExternalServerArgs, TargetArgs, TargetKind
from components.targets import target_of
from tests.unit.components.test_components import Engine, declare, opened, seen
from toolchain.images import Image

TARGET: TargetArgs = {
    "kind": TargetKind.KUBERNETES,
    "kubernetes": {"namespace": "lake", "stack": "test", "storage_class": "fast"},
}
IP = "10.96.1.2"
PROGRAMS = ("minio", "java", "postgres", "initdb", "prefect", "marketlake", "otel-collector", "jaeger")
WORKLOADS = ("kubernetes:apps/v1:Deployment", "kubernetes:apps/v1:StatefulSet")


class Cluster(Engine):
    """Gives every Service an address."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        id_, outputs = super().new_resource(args)
        if args.typ == "kubernetes:core/v1:Service":
            outputs["spec"] = {**outputs["spec"], "clusterIP": IP}
        return id_, outputs

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [args.inputs for args in self.declared.values() if args.typ.endswith(f":{kind}")]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    def locate(name: str, **_options: Any) -> Image:
        paths = {program: f"/opt/{name}/bin/{program}" for program in (*PROGRAMS, name)}
        return Image(
            name=name,
            version="7",
            reference=f"images.test/{name}@sha256:{'0' * 64}",
            digest=f"sha256:{'0' * 64}",
            executables=paths,
            roots={"kafka": "/opt/kafka"},
        )

    monkeypatch.setattr(images, "locate", locate)
    asyncio.set_event_loop(asyncio.new_event_loop())
    recorder = Cluster()
    mocks.set_mocks(recorder, project="marketlake", stack="test")
    return recorder


def pod(inputs: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = inputs["spec"]["template"]["spec"]
    return spec


def everything() -> None:
    database.Database("database", {"target": TARGET, "databases": ["one"]})
    object_store.ObjectStore("store", {"target": TARGET})
    event_bus.EventBus("bus", {"target": TARGET})
    observability.Observability("observability", {"target": TARGET})
    workflow_engine.WorkflowEngine(
        "engine",
        {
            "target": TARGET,
            "database": {"host": "h", "port": 1, "name": "n", "user": "u", "password": "p"},
        },
    )
    worker()
    worker_pool.CollectionWorkers(
        "workers",
        {"target": TARGET, "environment": "test", "settings": "geheim", "replicas": 2, "max_replicas": 5},
    )


def worker() -> None:
    worker_pool.WorkflowWorker(
        "worker",
        {
            "target": TARGET,
            "environment": "test",
            "settings": "geheim",
            "work_pool": "pool",
            "worker_type": worker_pool.KUBERNETES,
            "api_url": "http://engine/api",
            "auth_string": "user:geheim",
        },
    )


def test_what_lasts_is_a_stateful_set_and_everything_else_a_deployment(cluster: Cluster) -> None:
    declare(everything)
    stateful = {inputs["metadata"]["name"] for inputs in cluster.of_kind("StatefulSet")}
    stateless = {inputs["metadata"]["name"] for inputs in cluster.of_kind("Deployment")}
    stores = {"metrics-store", "log-store", "trace-store", "telemetry-collector"}
    assert stateful == {"database", "object-store", "event-bus", *stores}
    assert stateless == {"workflow-engine", "workflow-worker", "collection-worker"}


def test_workloads_keep_the_names_under_which_states_know_them(cluster: Cluster) -> None:
    """Under another one `up` would declare the object once more, and then delete it as the former."""
    declare(everything)
    kinds = ("kubernetes:apps/v1:StatefulSet", "kubernetes:apps/v1:Deployment")
    names = {args.name for args in cluster.declared.values() if args.typ in kinds}
    observability = {
        f"observability-{part}" for part in ("metrics-store", "log-store", "trace-store", "collector")
    }
    services = {"database", "store", "bus", "engine", "worker", "workers", *observability}
    assert names == {f"{service}-workload" for service in services}


def test_a_volume_outlives_its_workload_and_has_the_class_that_was_asked_for(cluster: Cluster) -> None:
    declare(lambda: object_store.ObjectStore("store", {"target": TARGET, "volume_mib": 777}))
    (stateful,) = cluster.of_kind("StatefulSet")
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "777Mi"
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["metadata"]["annotations"]["marketlake/backup"].startswith("none: ")
    assert set(stateful["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


@pytest.fixture
def pods(cluster: Cluster) -> list[dict[str, Any]]:
    declare(everything)
    found = [args.inputs for args in cluster.declared.values() if args.typ in WORKLOADS]
    assert len(found) == 10
    return [pod(inputs) for inputs in found]


def test_every_pod_meets_the_restricted_standard(pods: list[dict[str, Any]]) -> None:
    for spec in pods:
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(container["resources"]) == {"requests", "limits"}
            assert "@sha256:" in container["image"]


def test_no_secret_stands_in_a_pod(pods: list[dict[str, Any]]) -> None:
    assert "geheim" not in str(pods)
    assert "value-of-" not in str(pods)


def test_only_who_asks_the_cluster_something_gets_a_token(cluster: Cluster) -> None:
    declare(everything)
    with_token = set()
    for args in cluster.declared.values():
        if args.typ in WORKLOADS:
            spec = pod(args.inputs)
            assert spec["automountServiceAccountToken"] is False
            if any("token" in volume["name"] for volume in spec["volumes"]):
                with_token.add(args.inputs["metadata"]["name"])
    assert with_token == {"workflow-worker", "telemetry-collector"}
    assert {inputs["metadata"]["name"] for inputs in cluster.of_kind("Role")} == with_token


def test_the_token_of_the_collector_is_seen_by_the_reader_of_logs_alone(cluster: Cluster) -> None:
    declare(lambda: observability.Observability("observability", {"target": TARGET}))
    (inputs,) = [
        one for one in cluster.of_kind("StatefulSet") if one["metadata"]["name"] == "telemetry-collector"
    ]
    collector, reader = pod(inputs)["containers"]
    assert reader["command"][1:] == ["pod-logs", "--namespace=$(NAMESPACE)", "--folder=/var/log/marketlake"]
    assert "token" not in {mount["name"] for mount in collector["volumeMounts"]}
    assert "token" in {mount["name"] for mount in reader["volumeMounts"]}


def test_a_caller_is_let_in_and_nobody_else(cluster: Cluster) -> None:
    declare(everything)
    policies = {inputs["metadata"]["name"]: inputs["spec"] for inputs in cluster.of_kind("NetworkPolicy")}
    (way,) = policies["database"]["ingress"]
    assert way["from"] == [{"podSelector": {"matchLabels": {"marketlake/calls-database": "true"}}}]
    assert way["ports"] == [{"protocol": "TCP", "port": 5432}]
    callers = {
        args.inputs["metadata"]["name"]
        for args in cluster.declared.values()
        if args.typ in WORKLOADS
        and "marketlake/calls-database" in args.inputs["spec"]["template"]["metadata"]["labels"]
    }
    assert callers == {"workflow-engine", "collection-worker"}
    assert policies["collection-worker"]["ingress"] == []


def test_operators_are_let_in_beside_the_callers(cluster: Cluster) -> None:
    target: TargetArgs = {**TARGET, "kubernetes": {**TARGET["kubernetes"], "operators": ["10.20.0.0/16"]}}
    declare(lambda: database.Database("database", {"target": target, "databases": ["ledger"]}))
    policies = {inputs["metadata"]["name"]: inputs["spec"] for inputs in cluster.of_kind("NetworkPolicy")}
    (way,) = policies["database"]["ingress"]
    assert way["from"] == [
        {"podSelector": {"matchLabels": {"marketlake/calls-database": "true"}}},
        {"ipBlock": {"cidr": "10.20.0.0/16"}},
    ]


def egress(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """The ways out of a service, but for those to names and to other services."""
    (spec,) = [
        inputs["spec"] for inputs in cluster.of_kind("NetworkPolicy") if inputs["metadata"]["name"] == name
    ]
    ways: list[dict[str, Any]] = spec["egress"]
    return [
        way
        for way in ways
        if not any({"podSelector", "namespaceSelector"} & set(to) for to in way.get("to", ()))
    ]


def workers(*servers: ExternalServerArgs, **networks: Any) -> None:
    """Both kinds of workers, which read what a venue publishes."""
    target: TargetArgs = {**TARGET, "kubernetes": {**TARGET["kubernetes"], **networks}}  # type: ignore[typeddict-item]
    worker_pool.CollectionWorkers(
        "workers",
        {"target": target, "environment": "e", "settings": "s", "external_servers": list(servers)},
    )
    worker_pool.WorkflowWorker(
        "runs",
        {
            "target": target,
            "environment": "e",
            "settings": "s",
            "work_pool": "p",
            "worker_type": worker_pool.KUBERNETES,
            "api_url": "u",
            "auth_string": "a",
            "external_servers": list(servers),
        },
    )


@pytest.mark.parametrize(("given", "deadline_s"), [({}, 180), ({"rollout_allowance_seconds": 15}, 75)])
def test_a_rollout_is_given_up_after_the_services_start_and_what_is_allowed_beyond(
    cluster: Cluster, given: dict[str, int], deadline_s: int
) -> None:
    declare(lambda: workers(**given))
    assert {spec["spec"]["progressDeadlineSeconds"] for spec in cluster.of_kind("Deployment")} == {deadline_s}


def test_who_reads_a_venue_reaches_nothing_but_services_where_no_server_is_external(cluster: Cluster) -> None:
    declare(workers)
    assert egress(cluster, "collection-worker") == []
    assert egress(cluster, "workflow-run") == []


def test_servers_with_names_are_reached_by_their_ports_in_the_world_without_the_clusters_own_networks(
    cluster: Cluster,
) -> None:
    declare(
        lambda: workers(
            {"port": 443},
            {"host": "db.example.com", "port": 5432},
            {"host": "s3.example.com", "port": 443},
            closed_networks=["198.51.0.0/16"],
            external_networks=["10.20.5.0/28"],
        )
    )
    for service in ("collection-worker", "workflow-run"):
        (way,) = egress(cluster, service)
        assert way["ports"] == [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 5432}]
        world, declared = (to["ipBlock"] for to in way["to"])
        assert declared == {"cidr": "10.20.5.0/28"}
        assert world["cidr"] == "0.0.0.0/0"
        closed = [ip_network(network) for network in world["except"]]
        for inside in (
            "10.96.0.1", "10.244.0.9", "172.17.0.1", "192.168.1.1", "100.64.0.1",  # services, pods, nodes
            "169.254.169.254", "192.0.2.10", "198.51.100.7", "198.51.7.7", "127.0.0.1", "224.0.0.1",
        ):  # fmt: skip
            assert any(ip_address(inside) in network for network in closed), inside
        for outside in ("1.1.1.1", "52.219.0.1", "172.32.0.1", "192.169.0.1", "100.128.0.1"):
            assert not any(ip_address(outside) in network for network in closed), outside


def test_a_server_with_an_address_is_reached_there_alone(cluster: Cluster) -> None:
    declare(lambda: workers({"host": "10.1.2.3", "port": 5432}, {"host": "2001:db8::7", "port": 9092}))
    assert egress(cluster, "collection-worker") == [
        {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"protocol": "TCP", "port": 5432}]},
        {"to": [{"ipBlock": {"cidr": "2001:db8::7/128"}}], "ports": [{"protocol": "TCP", "port": 9092}]},
    ]


def test_the_workflow_engine_leaves_the_platform_for_its_external_database_alone(cluster: Cluster) -> None:
    database: workflow_engine.StateDatabaseArgs = {
        "host": "10.1.2.3", "port": 5432, "name": "n", "user": "u", "password": "p",
    }  # fmt: skip
    declare(lambda: workflow_engine.WorkflowEngine("own", {"target": TARGET, "database": database}))
    assert egress(cluster, "workflow-engine") == []
    cluster.declared.clear()
    elsewhere: workflow_engine.StateDatabaseArgs = {
        **database,
        "external": {"host": "10.1.2.3", "port": 5432},
    }
    declare(lambda: workflow_engine.WorkflowEngine("other", {"target": TARGET, "database": elsewhere}))
    (way,) = egress(cluster, "workflow-engine")
    assert way["to"] == [{"ipBlock": {"cidr": "10.1.2.3/32"}}]


def test_only_who_asks_the_clusters_api_has_a_way_to_it_and_says_so(cluster: Cluster) -> None:
    declare(everything)
    asking = {
        inputs["metadata"]["name"]
        for inputs in cluster.of_kind("NetworkPolicy")
        if any("to" not in way for way in inputs["spec"]["egress"])
    }
    declared = {
        inputs["metadata"]["name"]
        for inputs in cluster.of_kind("NetworkPolicy")
        if "marketlake/open-egress" in inputs["metadata"]["annotations"]
    }
    assert asking == declared
    assert asking <= {"telemetry-collector", "workflow-worker"}
    assert "telemetry-collector" in asking


def test_the_controller_of_the_event_bus_is_reached_by_itself_alone(cluster: Cluster) -> None:
    declare(lambda: event_bus.EventBus("bus", {"target": TARGET}))
    (service,) = cluster.of_kind("Service")
    assert [port["name"] for port in service["spec"]["ports"]] == ["client"]
    (secret,) = cluster.of_kind("Secret")
    properties = opened(secret["stringData"])["file.server.properties"]
    assert f"advertised.listeners=CLIENT://{IP}:9092" in properties
    assert "controller.quorum.voters=1@127.0.0.1:9093" in properties


def test_addresses_are_known_once_the_pods_are_ready(cluster: Cluster) -> None:
    outcome: list[Any] = []

    def program() -> None:
        store = object_store.ObjectStore("store", {"target": TARGET})
        outcome.extend([seen(store.endpoint), seen(store.service)])

    declare(program)
    assert outcome[0] == [f"http://{IP}:9000"]
    assert outcome[1][0]["control"] == "kubernetes:lake/statefulset/object-store"
    assert outcome[1][0]["console"] == f"http://{IP}:9001/"


def test_setup_runs_before_the_program_and_not_again(cluster: Cluster) -> None:
    declare(lambda: database.Database("database", {"target": TARGET, "databases": []}))
    (stateful,) = cluster.of_kind("StatefulSet")
    create, password = pod(stateful)["initContainers"]
    assert create["name"] == "create-the-cluster"
    line = create["command"][-1]
    assert line.startswith(
        "[ -e /var/lib/marketlake/data/cluster ] || { rm -rf /var/lib/marketlake/data/cluster.part"
    )
    assert line.endswith("mv /var/lib/marketlake/data/cluster.part /var/lib/marketlake/data/cluster; }")
    assert password["command"][-1].endswith("template1 < /etc/marketlake/superuser.sql")


def test_a_program_that_is_ended_by_another_signal_is_sent_it_first(cluster: Cluster) -> None:
    declare(lambda: database.Database("database", {"target": TARGET, "databases": []}))
    (stateful,) = cluster.of_kind("StatefulSet")
    hook = pod(stateful)["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[-1] == "kill -INT 1; sleep 1"


def test_a_changed_secret_makes_pods_start_anew(cluster: Cluster) -> None:
    def digest(settings: str) -> str:
        cluster.declared.clear()
        args: worker_pool.CollectionWorkersArgs = {
            "target": TARGET,
            "environment": "test",
            "settings": settings,
        }
        declare(lambda: worker_pool.CollectionWorkers("workers", args))
        (deployment,) = cluster.of_kind("Deployment")
        found: str = deployment["spec"]["template"]["metadata"]["annotations"]["marketlake/configuration"]
        return found

    assert digest("one") == digest("one")
    assert digest("one") != digest("two")


def test_replicas_spread_and_grow_with_their_load(cluster: Cluster) -> None:
    declare(everything)
    (scaler,) = cluster.of_kind("HorizontalPodAutoscaler")
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 5)
    (workers,) = [
        one for one in cluster.of_kind("Deployment") if one["metadata"]["name"] == "collection-worker"
    ]
    (spread,) = pod(workers)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert len(cluster.of_kind("PodDisruptionBudget")) == 10


def test_a_hung_worker_is_seen_by_its_heartbeat(cluster: Cluster) -> None:
    declare(everything)
    (workers,) = [
        one for one in cluster.of_kind("Deployment") if one["metadata"]["name"] == "collection-worker"
    ]
    (container,) = pod(workers)["containers"]
    assert {"name": "MARKETLAKE_HEARTBEAT_FILE", "value": "/tmp/heartbeat"} in container["env"]
    assert "/tmp/heartbeat" in container["livenessProbe"]["exec"]["command"][-1]


def test_a_run_finds_its_files_and_its_rights_when_its_job_starts(cluster: Cluster) -> None:
    manifests: list[Any] = []

    def program() -> None:
        worker()
        runs = worker_pool.flow_runs(TARGET, environment="test", api_url="http://engine/api")
        assert runs["worker_type"] == worker_pool.KUBERNETES
        runs["base_job_template"].apply(manifests.append)

    declare(program)
    job = manifests[0]["job_configuration"]["job_manifest"]
    spec = job["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "workflow-run"
    assert {inputs["metadata"]["name"] for inputs in cluster.of_kind("ServiceAccount")} == {
        "workflow-worker",
        "workflow-run",
    }
    secrets = {
        inputs["metadata"]["name"]: opened(inputs["stringData"]) for inputs in cluster.of_kind("Secret")
    }
    assert secrets["workflow-run"] == {
        "file.platform.json": "geheim",
        "env.PREFECT_API_AUTH_STRING": "user:geheim",
    }
    named = [
        variable["valueFrom"]["secretKeyRef"]
        for variable in spec["containers"][0]["env"]
        if "valueFrom" in variable
    ]
    assert named == [{"name": "workflow-run", "key": "env.PREFECT_API_AUTH_STRING"}]


def test_the_space_is_closed_and_orders_its_pods(cluster: Cluster) -> None:
    namespaces: list[Any] = []

    def program() -> None:
        space = Namespace("space", {"namespace": "lake", "stack": "test", "kubeconfig": "/k"})
        namespaces.append(seen(space.namespace))

    declare(program)
    assert namespaces == [["lake"]]
    (closed,) = cluster.of_kind("NetworkPolicy")
    assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    values = {inputs["metadata"]["name"]: inputs["value"] for inputs in cluster.of_kind("PriorityClass")}
    assert values["marketlake-test-data"] > values["marketlake-test-service"] > values["marketlake-test-work"]


def test_arguments_of_another_kind_are_no_target() -> None:
    with pytest.raises(ValueError, match="needs the arguments `kubernetes`"):
        target_of({"kind": TargetKind.KUBERNETES})
