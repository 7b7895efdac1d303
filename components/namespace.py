"""The base of a kubernetes target: a closed namespace, and the priorities of its pods."""

from collections.abc import Mapping
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes.networking.v1 import NetworkPolicy
from pulumi_kubernetes.scheduling.v1 import PriorityClass

from components.component import Component, known_after
from components.kubernetes.labels import priority_class, stack_labels
from components.kubernetes.network import DENY_ALL
from components.providers.cluster_namespace import ClusterNamespace
from components.service import Importance

_PRIORITIES: Mapping[Importance, int] = {
    Importance.DATA: 100_000,
    Importance.SERVICE: 10_000,
    Importance.WORK: 1_000,
}


class NamespaceArgs(TypedDict):
    """Arguments of a namespace."""

    namespace: str
    """Name of the namespace; it becomes this stack's alone."""
    stack: str
    """Name of the environment."""
    kubeconfig: str
    """Path of the kubeconfig file."""
    context: NotRequired[str | None]
    """Optional: the kubeconfig's current one when omitted."""
    keep_data: NotRequired[bool]
    """Optional: volumes outlive the stack; when omitted they are deleted with it."""


class Namespace(Component, formerly="ClusterSpace"):
    """A namespace, closed to all traffic that no service asks for."""

    namespace: pulumi.Output[str]
    """Known once pods can be made in it."""

    def __init__(self, name: str, args: NamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the namespace and what it holds before any service."""
        super().__init__(name, opts)
        stack = args["stack"]
        self._namespace = ClusterNamespace(
            f"{name}-namespace",
            {
                "namespace": args["namespace"],
                "stack": stack,
                "kubeconfig": args["kubeconfig"],
                "context": args.get("context"),
                "keep_data": args.get("keep_data", False),
            },
            self._child(),
        )
        there = known_after(pulumi.Output.from_input(args["namespace"]), self._namespace)
        closed = NetworkPolicy(
            f"{name}-deny-all",
            metadata={"name": "deny-all", "namespace": there, "labels": stack_labels(stack, "cluster-space")},
            spec=DENY_ALL,
            opts=self._child(),
        )
        classes = [
            PriorityClass(
                f"{name}-priority-{importance}",
                metadata={
                    "name": priority_class(stack, importance),
                    "labels": stack_labels(stack, "cluster-space"),
                },
                value=value,
                global_default=False,
                description=f"marketlake, stack {stack}: {importance}",
                opts=self._child(),
            )
            for importance, value in _PRIORITIES.items()
        ]
        ready = pulumi.Output.all(there, closed.id, *(known.id for known in classes))
        self.namespace = ready.apply(lambda values: str(values[0]))
        self.register_outputs({"namespace": self.namespace})

    @property
    def resource(self) -> pulumi.Resource:
        """The resource that everything in it is deleted with."""
        return self._namespace
