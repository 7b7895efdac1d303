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

from components.kubernetes.images import Images, version_of
from components.kubernetes.labels import priority_class, selector, service_labels
from components.kubernetes.layout import LOGS
from components.kubernetes.network import Networks, policy_of
from components.kubernetes.pod import (
    Texts,
    claims,
    job_spec,
    pod_spec,
    with_log_reader,
    with_token,
)
from components.kubernetes.workload import Known, Workload
from components.rendering import (
    console_address,
    health_target,
    main_address,
)
from components.service import Service
from components.target import Deployed, KubernetesTargetArgs
from policies.rules import require
from policies.rules.marks import API_ACCESS, OPEN_EGRESS
from toolchain.images.catalogue import RUNTIME

_ROLLOUT_ALLOWANCE_S = 120
"""What scheduling and fetching an image may take beyond the service's own time to start, unless it is said."""
_CPU_UTILISATION = 80
"""Per cent of the requested CPU beyond which a replica is added."""
_LOG_READER_MIB = 128
_LOG_READER = ("pod-logs", "--namespace=$(NAMESPACE)", f"--folder={LOGS}")

_TAKE_BACK = {"pulumi.com/patchForce": "true"}
"""Changes made with kubectl are set back; else the API server would refuse the next `up`."""


class KubernetesTarget:
    """Workloads of one stack, in a namespace of its own."""

    def __init__(self, args: KubernetesTargetArgs) -> None:
        self._namespace = pulumi.Output.from_input(args["namespace"])
        self._stack = args["stack"]
        self._storage_class = args.get("storage_class")
        self._allowance_s = args.get("rollout_allowance_seconds", _ROLLOUT_ALLOWANCE_S)
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
        workload = self._workload(service, opts)
        cluster_service = self._cluster_service(name, workload)
        address = cluster_service.spec.cluster_ip if cluster_service else pulumi.Output.from_input("")
        addresses = address.apply(lambda ip: _addresses(service, str(ip)))
        known = pulumi.Output.all(addresses=addresses, inputs=dict(inputs))
        hidden = pulumi.Output.all(known=known, secrets=pulumi.Output.secret(dict(secrets)))
        files = self._files(name, workload, known, hidden)
        account = self._account(name, workload)
        policy = self._network_policy(name, workload)
        before: list[pulumi.Resource] = [*files, *account, policy]
        if service.runs is not None:
            before += self._run_belongings(f"{name}-run", workload, service.runs, inputs, secrets)
        if cluster_service:
            before.append(cluster_service)
        controller = self._controller(name, workload, known, workload.digest(hidden), before)
        self._budget(name, workload, controller)
        if service.max_replicas is not None:
            self._autoscaler(name, workload, service.max_replicas, controller)
        reached = pulumi.Output.all(addresses, controller.id).apply(lambda values: values[0])
        return Deployed(resource=controller, addresses=reached, info=self._info(workload, addresses))

    def job(
        self, service: Service, *, inputs: Mapping[str, pulumi.Input[str]]
    ) -> pulumi.Output[Mapping[str, Any]]:
        """The Job of one run; see :class:`components.target.Target`."""
        workload = self._workload(service, pulumi.ResourceOptions())

        known = pulumi.Output.all(addresses={}, inputs=dict(inputs))
        spec = job_spec(
            service,
            workload.image.reference,
            workload.texts(known),
            files=service.name,
            account=service.name,
            priority=priority_class(self._stack, service.importance),
        )
        return pulumi.Output.from_input(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"namespace": self._namespace, "labels": dict(workload.labels)},
                "spec": {
                    "backoffLimit": 0,
                    "template": {"metadata": {"labels": workload.pod_labels}, "spec": spec},
                },
            }
        )

    def _workload(self, service: Service, opts: pulumi.ResourceOptions) -> Workload:
        image = self._images.of(service)
        version = version_of(service, image)
        return Workload(
            service=service,
            image=image,
            version=version,
            labels=service_labels(self._stack, service.name, version),
            opts=opts,
        )

    def _metadata(self, workload: Workload, annotations: Mapping[str, str] = _TAKE_BACK) -> dict[str, Any]:
        return {
            "name": workload.service.name,
            "namespace": self._namespace,
            "labels": dict(workload.labels),
            "annotations": dict(annotations),
        }

    def _child(self, workload: Workload, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(
            parent=workload.opts.parent, depends_on=list(after), delete_before_replace=True
        )

    def _cluster_service(self, name: str, workload: Workload) -> ClusterService | None:
        ports = {port: declared for port, declared in workload.service.ports.items() if not declared.private}
        if not ports:
            return None
        return ClusterService(
            f"{name}-service",
            # The controller, not the Service, is waited for: it needs the Service's address to start.
            metadata=self._metadata(workload, {**_TAKE_BACK, "pulumi.com/skipAwait": "true"}),
            spec={
                "type": "ClusterIP",
                "selector": selector(self._stack, workload.service.name),
                "ports": [
                    {"name": port, "port": declared.preferred, "targetPort": port, "protocol": "TCP"}
                    for port, declared in ports.items()
                ],
            },
            opts=self._child(workload),
        )

    def _files(
        self, name: str, workload: Workload, known: pulumi.Output[Known], hidden: pulumi.Output[Known]
    ) -> list[pulumi.Resource]:
        """The ConfigMap and the Secret, each only if there is something for it."""
        service, made = workload.service, []
        if any(not file.secret for file in service.files.values()):
            made.append(
                ConfigMap(
                    f"{name}-files",
                    metadata=self._metadata(workload),
                    data=known.apply(workload.plain_texts),
                    opts=self._child(workload),
                )
            )
        if service.secret_environment or any(file.secret for file in service.files.values()):
            made.append(
                Secret(
                    f"{name}-secrets",
                    metadata=self._metadata(workload),
                    type="Opaque",
                    string_data=hidden.apply(workload.secret_texts),
                    opts=self._child(workload),
                )
            )
        return made

    def _account(self, name: str, workload: Workload) -> list[pulumi.Resource]:
        """A service account and, if the service asks something of the cluster, the least right to do so."""
        account = ServiceAccount(
            f"{name}-account",
            metadata=self._metadata(workload),
            automount_service_account_token=False,
            opts=self._child(workload),
        )
        if not workload.rules:
            return [account]
        role = Role(
            f"{name}-role",
            metadata=self._metadata(workload),
            rules=workload.rules,
            opts=self._child(workload),
        )
        binding = RoleBinding(
            f"{name}-role-binding",
            metadata=self._metadata(workload),
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": workload.service.name},
            subjects=[
                {"kind": "ServiceAccount", "name": workload.service.name, "namespace": self._namespace}
            ],
            opts=self._child(workload, role, account),
        )
        return [account, role, binding]

    def _network_policy(self, name: str, workload: Workload) -> NetworkPolicy:
        annotations = dict(_TAKE_BACK)
        if workload.rules:
            annotations[OPEN_EGRESS] = "asks the cluster's API, whose address only the cluster knows"
        metadata = self._metadata(workload, annotations)
        spec = policy_of(
            workload.service, self._stack, calls_api_server=bool(workload.rules), networks=self._networks
        )
        require(
            "kubernetes:networking.k8s.io/v1:NetworkPolicy", {"metadata": metadata, "spec": spec}, name=name
        )
        return NetworkPolicy(
            f"{name}-network-policy", metadata=metadata, spec=spec, opts=self._child(workload)
        )

    def _run_belongings(
        self,
        name: str,
        parent: Workload,
        runs: Service,
        inputs: Mapping[str, pulumi.Input[str]],
        secrets: Mapping[str, pulumi.Input[str]],
    ) -> list[pulumi.Resource]:
        """What every run of `runs` finds when its Job starts; see :meth:`job`."""
        workload = self._workload(runs, parent.opts)
        known = pulumi.Output.all(addresses={}, inputs=dict(inputs))
        hidden = pulumi.Output.all(known=known, secrets=pulumi.Output.secret(dict(secrets)))
        return [
            *self._files(name, workload, known, hidden),
            *self._account(name, workload),
            self._network_policy(name, workload),
        ]

    def _controller(
        self,
        name: str,
        workload: Workload,
        known: pulumi.Output[Known],
        digest: pulumi.Output[str],
        before: Sequence[pulumi.Resource],
    ) -> Deployment | StatefulSet:
        service = workload.service
        template = self._template(workload, workload.texts(known), digest)
        opts = pulumi.ResourceOptions.merge(
            workload.opts,
            pulumi.ResourceOptions(
                depends_on=list(before),
                delete_before_replace=True,
                custom_timeouts=pulumi.CustomTimeouts(*(f"{self._deadline_s(service) + 30}s",) * 2),
            ),
        )
        kind = StatefulSet if workload.lasts else Deployment
        spec = (
            self._stateful_spec(service, template)
            if workload.lasts
            else self._stateless_spec(service, template)
        )
        spec["selector"] = {"matchLabels": selector(self._stack, service.name)}
        if service.max_replicas is None:  # else the number is the autoscaler's alone
            spec["replicas"] = service.replicas
        metadata = self._metadata(workload)
        require(f"kubernetes:apps/v1:{kind.__name__}", {"metadata": metadata, "spec": spec}, name=name)
        return kind(f"{name}-workload", metadata=metadata, spec=spec, opts=opts)

    def _deadline_s(self, service: Service) -> int:
        """How long a rollout may make no progress."""
        return int(service.health.timeout_s) + self._allowance_s

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
            "progressDeadlineSeconds": self._deadline_s(service),
            "revisionHistoryLimit": 3,
        }

    def _template(self, workload: Workload, texts: Texts, digest: pulumi.Output[str]) -> dict[str, Any]:
        service = workload.service
        spec = pod_spec(
            service,
            workload.image.reference,
            texts,
            files=service.name,
            account=service.name,
            priority=priority_class(self._stack, service.importance),
        )
        annotations: dict[str, Any] = {"marketlake/configuration": digest}
        if workload.reads_logs:
            runtime = self._images.named(RUNTIME)
            program = runtime.executables["marketlake"]
            spec = with_log_reader(
                spec, runtime.reference, (program, *_LOG_READER), memory_mib=_LOG_READER_MIB
            )
        elif workload.rules:
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
        if workload.rules:
            annotations[API_ACCESS] = (
                "reads the logs of its namespace" if workload.reads_logs else "starts Jobs"
            )
        return {"metadata": {"labels": workload.pod_labels, "annotations": annotations}, "spec": spec}

    def _budget(self, name: str, workload: Workload, controller: pulumi.Resource) -> None:
        PodDisruptionBudget(
            f"{name}-disruption-budget",
            metadata=self._metadata(workload),
            # With one replica, "none may be away" would keep a node from ever being drained.
            spec={
                "maxUnavailable": 1,
                "selector": {"matchLabels": selector(self._stack, workload.service.name)},
            },
            opts=self._child(workload, controller),
        )

    def _autoscaler(self, name: str, workload: Workload, most: int, controller: pulumi.Resource) -> None:
        kind = "StatefulSet" if workload.lasts else "Deployment"
        HorizontalPodAutoscaler(
            f"{name}-autoscaler",
            metadata=self._metadata(workload),
            spec={
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": workload.service.name},
                "minReplicas": workload.service.replicas,
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
            opts=self._child(workload, controller),
        )

    def _info(
        self, workload: Workload, addresses: pulumi.Output[Mapping[str, str]]
    ) -> pulumi.Output[dict[str, Any]]:
        service = workload.service
        kind = "statefulset" if workload.lasts else "deployment"

        def describe(values: Known) -> dict[str, Any]:
            known: Mapping[str, str] = values["addresses"]
            return ServiceInfo(
                name=service.name,
                version=workload.version,
                address=main_address(service, known),
                console=console_address(service, known) if workload.image.has_pages else None,
                health=service.health.kind,
                target=health_target(service, known),
                control=f"kubernetes:{values['namespace']}/{kind}/{service.name}",
            ).model_dump(mode="json", exclude_none=True)

        return pulumi.Output.all(addresses=addresses, namespace=self._namespace).apply(describe)


def _addresses(service: Service, ip: str) -> dict[str, str]:
    return {name: f"{ip}:{port.preferred}" for name, port in service.ports.items() if not port.private}
