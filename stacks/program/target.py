"""The target of an environment, declared from its settings."""

from dataclasses import dataclass

import pulumi
from marketlake.settings import Cluster

from components.host import Host
from components.target import KubernetesTargetArgs, TargetArgs, TargetKind
from stacks.settings.environment import EnvironmentSettings, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredTarget:
    """A target, ready for services."""

    target: TargetArgs
    root: pulumi.Resource
    """What all servers go with when the stack is destroyed."""
    opts: pulumi.ResourceOptions
    """Options of every component that runs there."""
    cluster: Cluster | None = None
    """How a command line finds the services again; None where their supervisor tells."""


def declare_target(environment: str, settings: EnvironmentSettings) -> DeclaredTarget:
    """Declare the target of an environment.

    Raises:
        KubeconfigMissingError: it is a cluster, and nothing opens it.
    """
    if settings.target is Target.KUBERNETES:
        return _namespace(environment, settings)
    return _host(environment, settings)


def _host(environment: str, settings: EnvironmentSettings) -> DeclaredTarget:
    space = Host("machine", {"folder": str(settings.folder(environment)), "keep_data": settings.keep_data})
    return DeclaredTarget(
        target={
            "kind": TargetKind.HOST,
            "host": {
                "folder": space.folder,
                "supervisor": space.supervisor,
                "ports": settings.ports.by_service(),
                "keep_data": settings.keep_data,
            },
        },
        root=space.resource,
        opts=pulumi.ResourceOptions(),
    )


def _namespace(environment: str, settings: EnvironmentSettings) -> DeclaredTarget:
    import pulumi_kubernetes  # takes seconds, and a host needs none of it

    from components.namespace import Namespace

    kubernetes, namespace = settings.kubernetes, settings.kubernetes.namespace_of(environment)
    kubeconfig = str(kubernetes.kubeconfig_file())
    provider = pulumi_kubernetes.Provider(
        "cluster",
        kubeconfig=kubeconfig,
        context=kubernetes.context,
        # Else another path or address of the same cluster would replace everything in it.
        cluster_identifier=namespace,
        enable_server_side_apply=True,
    )
    opts = pulumi.ResourceOptions(providers=[provider])
    space = Namespace(
        "space",
        {
            "namespace": namespace,
            "stack": environment,
            "kubeconfig": kubeconfig,
            "context": kubernetes.context,
            "keep_data": settings.keep_data,
        },
        opts,
    )
    args: KubernetesTargetArgs = {
        "namespace": space.namespace,
        "stack": environment,
        "rollout_allowance_seconds": kubernetes.rollout_allowance_seconds,
    }
    if kubernetes.storage_class is not None:
        args["storage_class"] = kubernetes.storage_class
    if settings.images.registry is not None:
        args["image_registry"] = settings.images.registry
    if settings.images.vendor:
        args["vendor_images"] = settings.images.vendor_args()
    if kubernetes.operators:
        args["operators"] = kubernetes.operators
    if kubernetes.closed_networks:
        args["closed_networks"] = kubernetes.closed_networks
    if kubernetes.external_networks:
        args["external_networks"] = kubernetes.external_networks
    return DeclaredTarget(
        target={"kind": TargetKind.KUBERNETES, "kubernetes": args},
        root=space.resource,
        opts=opts,
        cluster=Cluster(kubeconfig=kubeconfig, context=kubernetes.context, namespace=namespace),
    )
