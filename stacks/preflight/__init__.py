"""Checks of where a stack runs, before Pulumi works there and after it left: this machine, or a cluster."""

from typing import Protocol

from stacks.engine.state import PendingCreate
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.targets import Target


class Preflight(Protocol):
    """What the commands ask of a target."""

    def check(self) -> list[str]:
        """Check that the stack can be brought up, and return warnings of what is scarce.

        Raises:
            CapacityError: it cannot be brought up.
            KubeconfigMissingError: nothing opens the cluster.
            ClusterUnreachableError: the cluster does not answer.
        """

    def supply(self, *, load: bool) -> None:
        """Build what services run from, if it is built here and is missing or stale.

        Args:
            load: bring it to where the services run, too.

        Raises:
            ToolchainError: it cannot be built.
            CapacityError: it is missing where the services run, and cannot be brought there.
            ClusterUnreachableError: the cluster does not answer.
        """

    def reach(self) -> None:
        """Check that the target answers.

        Raises:
            ClusterUnreachableError: it does not.
        """

    def await_rollouts(self) -> None:
        """Wait until what Pulumi changed has become so.

        Raises:
            RolloutError: it does not; the message says why.
            ClusterUnreachableError: the cluster does not answer.
        """

    def settle(self, pending: list[PendingCreate]) -> list[PendingCreate] | None:
        """Delete what a killed command created and could not record, where the next `up` would not adopt it.

        Returns:
            What was deleted; None where the next `up` adopts everything, so that Pulumi need not forget anything.

        Raises:
            ClusterUnreachableError: the cluster does not answer.
        """

    def remove_leftovers(self, *, keep_data: bool) -> list[str]:
        """Remove what is left after Pulumi destroyed the stack, and return a line for each."""

    def leftovers(self, *, keep_data: bool) -> list[str]:
        """Return what is left even then."""

    def after_removal(self, *, keep_data: bool) -> str:
        """Return what became of the data, for the user."""


def preflight_of(environment: str, settings: EnvironmentSettings) -> Preflight:
    """Return the preflight of an environment's target.

    Raises:
        KubeconfigMissingError: it is a cluster, and nothing opens it.
    """
    if settings.target is Target.KUBERNETES:
        from stacks.preflight.kubernetes import KubernetesPreflight

        return KubernetesPreflight.of(environment, settings)
    from stacks.preflight.host import HostPreflight

    return HostPreflight(environment, settings)
