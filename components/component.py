"""What all components share."""

import pulumi


class Component(pulumi.ComponentResource):
    """A component of the platform; its type is ``marketlake:index:<class>``."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None) -> None:
        super().__init__(f"marketlake:index:{type(self).__name__}", name, None, opts)

    def _child(
        self, *after: pulumi.Resource, inside: pulumi.Resource | None = None, retained: bool = False
    ) -> pulumi.ResourceOptions:
        """Options of a child.

        Args:
            after: what has to be there first.
            inside: the server that the child is a part of, like a table is of a database. When that is deleted, the
                child needs no deletion of its own, and what it holds follows the fate of the server's volume.
            retained: it lies in a server of somebody else's, and stays there when the stack is destroyed.
        """
        return pulumi.ResourceOptions(
            parent=self,
            depends_on=list(after),
            deleted_with=None if retained else inside,
            retain_on_delete=retained,
        )


def known_after(value: pulumi.Output[str], resource: pulumi.Resource) -> pulumi.Output[str]:
    """`value`, known only once `resource` exists: who uses it, waits."""
    return pulumi.Output.all(value, resource.urn).apply(lambda values: str(values[0]))
