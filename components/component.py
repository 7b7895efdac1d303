"""What all components share."""

import pulumi


class Component(pulumi.ComponentResource):
    """A component of the platform; its type is ``marketlake:index:<class>``."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None) -> None:
        super().__init__(f"marketlake:index:{type(self).__name__}", name, None, opts)
        self._deleted_with = opts.deleted_with if opts else None

    def _child(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        """Options of a child that is created after the given resources."""
        return pulumi.ResourceOptions(parent=self, depends_on=list(after))

    def _content(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        """Options of a child that lives inside a server, like a table in a database.

        Where the component is declared with `deleted_with`, the child needs no deletion of its own when that goes,
        and what it holds follows the fate of the server's volume.
        """
        return pulumi.ResourceOptions(parent=self, depends_on=list(after), deleted_with=self._deleted_with)


def known_after(value: pulumi.Output[str], resource: pulumi.Resource) -> pulumi.Output[str]:
    """`value`, known only once `resource` exists: who uses it, waits."""
    return pulumi.Output.all(value, resource.urn).apply(lambda values: str(values[0]))
