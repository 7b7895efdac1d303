"""The rules that hold for every environment, as plain functions.

A validator takes a resource's type and properties and yields what breaks its rule. Components call :func:`require`
on what they are about to declare, the policy pack calls the same functions on every resource of a preview, and
`pulumi policy analyze` on a recorded state.
"""

from collections.abc import Iterator

from policies.rules import buckets, containment, durability, egress, exposure, secrecy, workloads
from policies.rules.rule import Declared, Enforcement, Properties, Rule, Violation

RULES: tuple[Rule, ...] = (
    *containment.RULES,
    *workloads.RULES,
    *exposure.RULES,
    *egress.RULES,
    *secrecy.RULES,
    *buckets.RULES,
    *durability.RULES,
)

__all__ = [
    "RULES",
    "Declared",
    "Enforcement",
    "PolicyError",
    "Properties",
    "Rule",
    "Violation",
    "require",
    "violations",
]


class PolicyError(ValueError):
    """A component was about to declare what a rule forbids; the message says what, where and the remedy."""


def violations(resource_type: str, properties: Properties) -> Iterator[tuple[Rule, Violation]]:
    """Yield the violations of one resource, as far as its properties are known."""
    for rule in RULES:
        if rule.resource is not None:
            yield from ((rule, violation) for violation in rule.resource(resource_type, properties))


def require(resource_type: str, properties: Properties, *, name: str = "") -> None:
    """Raise if a resource breaks a mandatory rule, before it is declared.

    Args:
        resource_type: as Pulumi writes it: ``kubernetes:apps/v1:Deployment``.
        properties: its inputs; values that are not known yet are passed over.
        name: the resource's name, for the message.

    Raises:
        PolicyError: it breaks a rule.
    """
    found = [
        f"\n  {violation}\n    rule {rule.id}: {rule.title}. {rule.remedy}"
        for rule, violation in violations(resource_type, properties)
        if rule.enforcement is Enforcement.MANDATORY
    ]
    if found:
        raise PolicyError(
            f"{' '.join(filter(None, (resource_type, name)))} breaks the policies:{''.join(found)}"
        )
