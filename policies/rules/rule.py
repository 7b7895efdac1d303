"""What a rule is. Rules know nothing of Pulumi, so components, the pack and tests use the very same functions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Properties = Mapping[str, Any]
"""A resource's inputs, as Pulumi knows them. A value that is not known yet is no plain value: see
:func:`policies.rules.reading.is_known`."""


class Enforcement(StrEnum):
    """What a violation does, unless an environment says otherwise."""

    MANDATORY = "mandatory"
    """It stops the preview, and the update."""
    ADVISORY = "advisory"
    """It is reported, and stops nothing."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One place that breaks a rule."""

    where: str
    """The property, as a path: ``spec.template.spec.containers[0].image``; empty for the resource itself."""
    what: str
    """What stands there and what is allowed."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A resource of a stack."""

    urn: str
    type: str
    name: str
    properties: Properties
    dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Urns of the resources that a property's value comes from."""


Validator = Callable[[str, Properties], Iterator[Violation]]
"""Looks at one resource: its type and its properties."""
StackValidator = Callable[[Sequence[Declared]], Iterator[tuple[Declared, Violation]]]
"""Looks at all resources of a stack together, and says which of them breaks the rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A requirement, its reason and its remedy. Exactly one of `resource` and `stack` is set."""

    id: str
    title: str
    """What holds where the rule is kept."""
    why: str
    remedy: str
    enforcement: Enforcement = Enforcement.MANDATORY
    resource: Validator | None = None
    stack: StackValidator | None = None
