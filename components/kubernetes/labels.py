"""Labels: objects of a stack are found by them, and network policies select pods by them."""

import re

PART_OF = "app.kubernetes.io/part-of"
INSTANCE = "app.kubernetes.io/instance"
NAME = "app.kubernetes.io/name"
VERSION = "app.kubernetes.io/version"
MANAGED_BY = "app.kubernetes.io/managed-by"

PLATFORM = "marketlake"

STACK, _SERVICE = "marketlake/stack", "marketlake/service"
"""What selects pods and runs: Prefect writes its own values into the usual labels of the Jobs that it starts."""


def stack_labels(stack: str, name: str) -> dict[str, str]:
    """Labels of an object of a stack; `name` says what part of it."""
    return {NAME: name, PART_OF: PLATFORM, INSTANCE: stack, MANAGED_BY: "pulumi"}


def service_labels(stack: str, service: str, version: str) -> dict[str, str]:
    """Labels of every object of one service."""
    # A vendor's image may have no version but a digest, which may not stand in a label as it is.
    written = re.sub(r"[^A-Za-z0-9_.-]", "_", version)[:63].strip("_.-")
    return {**stack_labels(stack, service), **selector(stack, service), VERSION: written}


def selector(stack: str, service: str) -> dict[str, str]:
    """Labels that pick a service's pods; unlike its version, they never change."""
    return {_SERVICE: service, STACK: stack}


def caller_of(service: str) -> str:
    """The label that a pod carries if it may connect to `service`."""
    return f"marketlake/calls-{service}"


def priority_class(stack: str, importance: str) -> str:
    """Name of the priority class of a stack's pods of that importance; classes belong to the whole cluster."""
    return f"{PLATFORM}-{stack}-{importance}"
