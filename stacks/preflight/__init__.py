"""What a stack stands on, as the commands of the Makefile see it: this machine, or a cluster."""

from typing import Protocol

from stacks.engine.pending import PendingCreate
from stacks.settings.environment import EnvironmentSettings, Target


class Premises(Protocol):
    """A place that is looked at before and after Pulumi works in it."""

    def check(self) -> list[str]:
        """Whether the stack can be brought up; what may do comes back as warnings.

        Raises:
            NotEnoughError: it cannot.
            KubeconfigMissingError: nothing opens the cluster.
            ClusterUnreachableError: nobody can tell.
        """

    def supply(self, *, bring: bool) -> None:
        """Make what services run from and can be made here, if it is missing or stale.

        Args:
            bring: take it to where the services run, too.

        Raises:
            ToolchainError: it cannot be made.
            NotEnoughError: it is not where the services run, and cannot be taken there.
            ClusterUnreachableError: nobody can tell.
        """

    def reach(self) -> None:
        """Make sure that it answers.

        Raises:
            ClusterUnreachableError: it does not.
        """

    def settle(self, pending: list[PendingCreate]) -> list[PendingCreate] | None:
        """Make room for what a killed command began to create and could not record.

        Returns:
            What had to go for that; None where Pulumi need not forget anything, since the next `up` adopts all.

        Raises:
            ClusterUnreachableError: nobody can tell.
        """

    def clear(self, *, keep_data: bool) -> list[str]:
        """Take away what is left after Pulumi destroyed the stack, and tell what it was."""

    def left(self, *, keep_data: bool) -> list[str]:
        """What is still there then."""

    def fate(self, *, keep_data: bool) -> str:
        """What became of the data, for the user."""


def premises_of(environment: str, settings: EnvironmentSettings) -> Premises:
    """The premises of an environment.

    Raises:
        KubeconfigMissingError: it is a cluster, and nothing opens it.
    """
    if settings.target is Target.KUBERNETES:
        from stacks.preflight.kubernetes import ClusterPremises

        return ClusterPremises.of(environment, settings)
    from stacks.preflight.host import HostPremises

    return HostPremises(environment, settings)
