"""The labels by which everything of a stack is found, and by which its network policies tell who may talk to whom."""

PART_OF = "app.kubernetes.io/part-of"
INSTANCE = "app.kubernetes.io/instance"
NAME = "app.kubernetes.io/name"
VERSION = "app.kubernetes.io/version"
MANAGED_BY = "app.kubernetes.io/managed-by"

PLATFORM = "marketlake"

_STACK, _SERVICE = "marketlake/stack", "marketlake/service"
"""What selects pods: Prefect writes its own values into the usual labels of the Jobs that it starts."""


def stack_labels(stack: str) -> dict[str, str]:
    """Labels of every object of a stack."""
    return {PART_OF: PLATFORM, INSTANCE: stack, MANAGED_BY: "pulumi"}


def service_labels(stack: str, service: str, version: str) -> dict[str, str]:
    """Labels of every object of one service."""
    return {**stack_labels(stack), **selector(stack, service), NAME: service, VERSION: version}


def selector(stack: str, service: str) -> dict[str, str]:
    """Labels that pick a service's pods; unlike its version, they never change."""
    return {_SERVICE: service, _STACK: stack}


def caller_of(service: str) -> str:
    """The label that a pod carries if it may connect to `service`."""
    return f"marketlake/calls-{service}"
