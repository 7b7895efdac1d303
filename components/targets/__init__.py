"""Where services run: each module realises them in one kind of place."""

from collections.abc import Callable, Mapping

from components.target import Target, TargetArgs, TargetKind
from components.targets.host import HostTarget

_BY_KIND: Mapping[TargetKind, Callable[[TargetArgs], Target]] = {TargetKind.HOST: HostTarget}


def target_of(args: TargetArgs) -> Target:
    """The target that `args` describe."""
    return _BY_KIND[TargetKind(args["kind"])](args)
