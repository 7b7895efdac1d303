"""The targets: each module deploys services to one kind of target."""

from components.target import Target, TargetArgs, TargetKind
from components.targets.host import HostTarget


def target_of(args: TargetArgs) -> Target:
    """Return the target that `args` describe.

    Raises:
        ValueError: an unknown kind, or the arguments of that kind are missing.
    """
    kind = TargetKind(args["kind"])
    if kind.value not in args:
        raise ValueError(f"a target of kind {kind.value!r} needs the arguments `{kind.value}`")
    if kind is TargetKind.HOST:
        return HostTarget(args["host"])
    from components.targets.kubernetes import (
        KubernetesTarget,  # its SDK takes seconds, and a host needs none of it
    )

    return KubernetesTarget(args["kubernetes"])
