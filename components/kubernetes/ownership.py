"""The owner of a namespace."""

from components.kubernetes.labels import INSTANCE


def refusal(namespace: str, *, owner: str | None, stack: str) -> str:
    """Return why a stack does not use an existing namespace, and what to do.

    Args:
        namespace: its name, with which the sentence begins.
        owner: the stack that it belongs to; empty or None: none at all.
        stack: the one that wants it.
    """
    whose = f"belongs to the stack {owner!r}" if owner else "is not of this platform"
    return (
        f"{namespace} exists and {whose}. Name another with `pulumi config set --path "
        "marketlake:kubernetes.namespace NAME`; or, if it is to become this stack's, say so with `kubectl label "
        f"--overwrite namespace {namespace} {INSTANCE}={stack}`"
    )
