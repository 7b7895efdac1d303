"""A namespace of a cluster as a target: every service becomes a workload with what belongs to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from marketlake.settings import ServiceInfo
from pulumi_kubernetes.apps.v1 import Deployment, StatefulSet
from pulumi_kubernetes.autoscaling.v2 import HorizontalPodAutoscaler
from pulumi_kubernetes.core.v1 import ConfigMap, Secret, ServiceAccount
from pulumi_kubernetes.core.v1 import Service as ClusterService
from pulumi_kubernetes.networking.v1 import NetworkPolicy
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget
from pulumi_kubernetes.rbac.v1 import Role, RoleBinding

from components.kubernetes.labels import priority_class, selector, service_labels
from components.kubernetes.layout import LOGS
from components.kubernetes.network import Networks, policy_of
from components.kubernetes.piece import Known, Piece
from components.kubernetes.placing import Images, version_of
from components.kubernetes.pod import (
    Texts,
    claims,
    job_spec,
    pod_spec,
    with_log_reader,
    with_token,
)
from components.rendering import (
    console_address,
    health_target,
    main_address,
)
from components.service import Service
from components.target import Deployed, KubernetesArgs
from policies.rules import require
from policies.rules.marks import API_ACCESS, OPEN_EGRESS
from toolchain.images.catalogue import RUNTIME

_ROLLOUT_SPARE_S = 120
"""What scheduling and fetching an image may take, beyond the service's own time to start."""
_CPU_UTILISATION = 80
"""Per cent of the requested CPU beyond which a replica is added."""
_LOG_READER_MIB = 128
_LOG_READER = ("pod-logs", "--namespace=$(NAMESPACE)", f"--folder={LOGS}")

_TAKE_BACK = {"pulumi.com/patchForce": "true"}
"""What somebody changed with kubectl is set back; else the API server would refuse the next `up` over it."""


class KubernetesTarget:
    """Workloads of one stack, in a namespace of its own."""

    def __init__(self, args: KubernetesArgs) -> None:
        self._namespace = pulumi.Output.from_input(args["namespace"])
        self._stack = args["stack"]
        self._storage_class = args.get("storage_class")
        self._images = Images(registry=args.get("image_registry"), vendor=args.get("vendor_images"))
        self._networks = Networks(
            operators=args.get("operators", []),
            closed=args.get("closed_networks", []),
            external=args.get("external_networks", []),
        )

    def deploy(
        self,
        name: str,
        service: Service,
        *,
        inputs: Mapping[str, pulumi.Input[str]],
        secrets: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions,
    ) -> Deployed:
        """Bring a service's objects, and wait until its pods are ready; see :class:`components.target.Target`.

        Addresses are those of the service's virtual IP: they are right in every pod and on every node, which names,
        that only the cluster's DNS resolves, are not.

        Raises:
            ImageMissingError: its image was not built.
        """
        piece = self._piece(service, opts)
        cluster_service = self._cluster_service(name, piece)
        address = cluster_service.spec.cluster_ip if cluster_service else pulumi.Output.from_input("")
        addresses = address.apply(lambda ip: _addresses(service, str(ip)))
        known = pulumi.Output.all(addresses=addresses, inputs=dict(inputs))
        hidden = pulumi.Output.all(known=known, secrets=pulumi.Output.secret(dict(secrets)))
        files = self._files(name, piece, known, hidden)
        account = self._account(name, piece)
        policy = self._network_policy(name, piece)
        before: list[pulumi.Resource] = [*files, *account, policy]
        if service.runs is not None:
            before += self._run_belongings(f"{name}-run", piece, service.runs, inputs, secrets)
        if cluster_service:
            before.append(cluster_service)
        workload = self._workload(name, piece, known, piece.digest(hidden), before)
        self._budget(name, piece, workload)
        if service.max_replicas is not None:
            self._autoscaler(name, piece, service.max_replicas, workload)
        reached = pulumi.Output.all(addresses, workload.id).apply(lambda values: values[0])
        return Deployed(resource=workload, addresses=reached, info=self._info(piece, addresses))

    def job(
        self, service: Service, *, inputs: Mapping[str, pulumi.Input[str]]
    ) -> pulumi.Output[Mapping[str, Any]]:
        """The Job of one run; see :class:`components.target.Target`."""
        piece = self._piece(service, pulumi.ResourceOptions())

        known = pulumi.Output.all(addresses={}, inputs=dict(inputs))
        spec = job_spec(
            service,
            piece.image.reference,
            piece.texts(known),
            files=service.name,
            account=service.name,
            priority=priority_class(self._stack, service.importance),
        )
        return pulumi.Output.from_input(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"namespace": self._namespace, "labels": dict(piece.labels)},
                "spec": {
                    "backoffLimit": 0,
                    "template": {"metadata": {"labels": piece.pod_labels}, "spec": spec},
                },
            }
        )

    def _piece(self, service: Service, opts: pulumi.ResourceOptions) -> Piece:
        image = self._images.of(service)
        version = version_of(service, image)
        return Piece(
            service=service,
            image=image,
            version=version,
            labels=service_labels(self._stack, service.name, version),
            opts=opts,
        )

    def _metadata(self, piece: Piece, annotations: Mapping[str, str] = _TAKE_BACK) -> dict[str, Any]:
        return {
            "name": piece.service.name,
            "namespace": self._namespace,
            "labels": dict(piece.labels),
            "annotations": dict(annotations),
        }

    def _child(self, piece: Piece, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(
            parent=piece.opts.parent, depends_on=list(after), delete_before_replace=True
        )

    def _cluster_service(self, name: str, piece: Piece) -> ClusterService | None:
        ports = {port: declared for port, declared in piece.service.ports.items() if not declared.private}
        if not ports:
            return None
        return ClusterService(
            f"{name}-service",
            # The workload, not the Service, is waited for: it needs the Service's address to start.
            metadata=self._metadata(piece, {**_TAKE_BACK, "pulumi.com/skipAwait": "true"}),
            spec={
                "type": "ClusterIP",
                "selector": selector(self._stack, piece.service.name),
                "ports": [
                    {"name": port, "port": declared.preferred, "targetPort": port, "protocol": "TCP"}
                    for port, declared in ports.items()
                ],
            },
            opts=self._child(piece),
        )

    def _files(
        self, name: str, piece: Piece, known: pulumi.Output[Known], hidden: pulumi.Output[Known]
    ) -> list[pulumi.Resource]:
        """The ConfigMap and the Secret, each only if there is something for it."""
        service, made = piece.service, []
        if any(not file.secret for file in service.files.values()):
            made.append(
                ConfigMap(
                    f"{name}-files",
                    metadata=self._metadata(piece),
                    data=known.apply(piece.plain_texts),
                    opts=self._child(piece),
                )
            )
        if service.secret_environment or any(file.secret for file in service.files.values()):
            made.append(
                Secret(
                    f"{name}-secrets",
                    metadata=self._metadata(piece),
                    type="Opaque",
                    string_data=hidden.apply(piece.secret_texts),
                    opts=self._child(piece),
                )
            )
        return made

    def _account(self, name: str, piece: Piece) -> list[pulumi.Resource]:
        """A service account and, if the service asks something of the cluster, the least right to do so."""
        account = ServiceAccount(
            f"{name}-account",
            metadata=self._metadata(piece),
            automount_service_account_token=False,
            opts=self._child(piece),
        )
        if not piece.rules:
            return [account]
        role = Role(
            f"{name}-role", metadata=self._metadata(piece), rules=piece.rules, opts=self._child(piece)
        )
        binding = RoleBinding(
            f"{name}-role-binding",
            metadata=self._metadata(piece),
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": piece.service.name},
            subjects=[{"kind": "ServiceAccount", "name": piece.service.name, "namespace": self._namespace}],
            opts=self._child(piece, role, account),
        )
        return [account, role, binding]

    def _network_policy(self, name: str, piece: Piece) -> NetworkPolicy:
        annotations = dict(_TAKE_BACK)
        if piece.rules:
            annotations[OPEN_EGRESS] = "asks the cluster's API, whose address only the cluster knows"
        metadata = self._metadata(piece, annotations)
        spec = policy_of(
            piece.service, self._stack, calls_api_server=bool(piece.rules), networks=self._networks
        )
        require(
            "kubernetes:networking.k8s.io/v1:NetworkPolicy", {"metadata": metadata, "spec": spec}, name=name
        )
        return NetworkPolicy(f"{name}-network-policy", metadata=metadata, spec=spec, opts=self._child(piece))

    def _run_belongings(
        self,
        name: str,
        parent: Piece,
        runs: Service,
        inputs: Mapping[str, pulumi.Input[str]],
        secrets: Mapping[str, pulumi.Input[str]],
    ) -> list[pulumi.Resource]:
        """What every run of `runs` finds when its Job starts; see :meth:`job`."""
        piece = self._piece(runs, parent.opts)
        known = pulumi.Output.all(addresses={}, inputs=dict(inputs))
        hidden = pulumi.Output.all(known=known, secrets=pulumi.Output.secret(dict(secrets)))
        return [
            *self._files(name, piece, known, hidden),
            *self._account(name, piece),
            self._network_policy(name, piece),
        ]

    def _workload(
        self,
        name: str,
        piece: Piece,
        known: pulumi.Output[Known],
        digest: pulumi.Output[str],
        before: Sequence[pulumi.Resource],
    ) -> Deployment | StatefulSet:
        service = piece.service
        template = self._template(piece, piece.texts(known), digest)
        opts = pulumi.ResourceOptions.merge(
            piece.opts,
            pulumi.ResourceOptions(
                depends_on=list(before),
                delete_before_replace=True,
                custom_timeouts=pulumi.CustomTimeouts(*(f"{_deadline_s(service) + 30}s",) * 2),
            ),
        )
        kind = StatefulSet if piece.lasts else Deployment
        spec = (
            self._stateful_spec(service, template) if piece.lasts else self._stateless_spec(service, template)
        )
        spec["selector"] = {"matchLabels": selector(self._stack, service.name)}
        if service.max_replicas is None:  # else the number is the autoscaler's alone
            spec["replicas"] = service.replicas
        metadata = self._metadata(piece)
        require(f"kubernetes:apps/v1:{kind.__name__}", {"metadata": metadata, "spec": spec}, name=name)
        return kind(f"{name}-workload", metadata=metadata, spec=spec, opts=opts)

    def _stateful_spec(self, service: Service, template: Known) -> dict[str, Any]:
        return {
            "serviceName": service.name,
            "template": template,
            "podManagementPolicy": "Parallel",
            "volumeClaimTemplates": claims(service, self._storage_class),
            # Data goes with the namespace, and with that only if whoever destroys wants it to.
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        }

    def _stateless_spec(self, service: Service, template: Known) -> dict[str, Any]:
        return {
            "template": template,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": _deadline_s(service),
            "revisionHistoryLimit": 3,
        }

    def _template(self, piece: Piece, texts: Texts, digest: pulumi.Output[str]) -> dict[str, Any]:
        service = piece.service
        spec = pod_spec(
            service,
            piece.image.reference,
            texts,
            files=service.name,
            account=service.name,
            priority=priority_class(self._stack, service.importance),
        )
        annotations: dict[str, Any] = {"marketlake/configuration": digest}
        if piece.reads_logs:
            runtime = self._images.named(RUNTIME)
            program = runtime.executables["marketlake"]
            spec = with_log_reader(
                spec, runtime.reference, (program, *_LOG_READER), memory_mib=_LOG_READER_MIB
            )
        elif piece.rules:
            spec = with_token(spec)
        if (service.max_replicas or service.replicas) > 1:
            spec["topologySpreadConstraints"] = [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector(self._stack, service.name)},
                }
            ]
        if piece.rules:
            annotations[API_ACCESS] = "reads the logs of its namespace" if piece.reads_logs else "starts Jobs"
        return {"metadata": {"labels": piece.pod_labels, "annotations": annotations}, "spec": spec}

    def _budget(self, name: str, piece: Piece, workload: pulumi.Resource) -> None:
        PodDisruptionBudget(
            f"{name}-disruption-budget",
            metadata=self._metadata(piece),
            # With one replica, "none may be away" would keep a node from ever being drained.
            spec={
                "maxUnavailable": 1,
                "selector": {"matchLabels": selector(self._stack, piece.service.name)},
            },
            opts=self._child(piece, workload),
        )

    def _autoscaler(self, name: str, piece: Piece, most: int, workload: pulumi.Resource) -> None:
        kind = "StatefulSet" if piece.lasts else "Deployment"
        HorizontalPodAutoscaler(
            f"{name}-autoscaler",
            metadata=self._metadata(piece),
            spec={
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": piece.service.name},
                "minReplicas": piece.service.replicas,
                "maxReplicas": most,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": _CPU_UTILISATION},
                        },
                    }
                ],
            },
            opts=self._child(piece, workload),
        )

    def _info(
        self, piece: Piece, addresses: pulumi.Output[Mapping[str, str]]
    ) -> pulumi.Output[dict[str, Any]]:
        service = piece.service
        kind = "statefulset" if piece.lasts else "deployment"

        def describe(values: Known) -> dict[str, Any]:
            known: Mapping[str, str] = values["addresses"]
            return ServiceInfo(
                name=service.name,
                version=piece.version,
                address=main_address(service, known),
                console=console_address(service, known) if piece.image.has_pages else None,
                health=service.health.kind,
                target=health_target(service, known),
                control=f"kubernetes:{values['namespace']}/{kind}/{service.name}",
            ).model_dump(mode="json", exclude_none=True)

        return pulumi.Output.all(addresses=addresses, namespace=self._namespace).apply(describe)


def _addresses(service: Service, ip: str) -> dict[str, str]:
    return {name: f"{ip}:{port.preferred}" for name, port in service.ports.items() if not port.private}


def _deadline_s(service: Service) -> int:
    return int(service.health.timeout_s) + _ROLLOUT_SPARE_S
