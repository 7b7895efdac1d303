"""The base class of all components."""

from typing import Any, ClassVar

import pulumi

_TYPE = "marketlake:index:"


class Component(pulumi.ComponentResource):
    """A component of the platform; its type is ``marketlake:index:<class>``."""

    _former: ClassVar[tuple[pulumi.Alias, ...]] = ()

    def __init_subclass__(cls, *, formerly: str | None = None, **options: Any) -> None:
        """Let a renamed component take over what states know by its former name.

        Args:
            formerly: the class's former name.
            options: of other base classes.
        """
        super().__init_subclass__(**options)
        if formerly is not None:
            cls._former = (pulumi.Alias(type_=f"{_TYPE}{formerly}"),)

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None) -> None:
        aliased = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(aliases=list(self._former)))
        super().__init__(f"{_TYPE}{type(self).__name__}", name, None, aliased)

    def _child(
        self, *after: pulumi.Resource, inside: pulumi.Resource | None = None, retained: bool = False
    ) -> pulumi.ResourceOptions:
        """Options of a child.

        Args:
            after: resources that have to exist first.
            inside: the server that the child is a part of, like a table is of a database. When that is deleted, the
                child needs no deletion of its own, and what it holds is kept or deleted with the server's volume.
            retained: it lies in an external server, and stays there when the stack is destroyed.
        """
        return pulumi.ResourceOptions(
            parent=self,
            depends_on=list(after),
            deleted_with=None if retained else inside,
            retain_on_delete=retained,
        )


def known_after(value: pulumi.Output[str], resource: pulumi.Resource) -> pulumi.Output[str]:
    """Return `value`, known only once `resource` exists."""
    return pulumi.Output.all(value, resource.urn).apply(lambda values: str(values[0]))
