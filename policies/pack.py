"""The rules as a Pulumi policy pack."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from policies.rules import Declared, Rule, Violation
from policies.rules.reading import UNKNOWN
from policies.rules.rule import StackValidator, Validator

NAME = "marketlake"
REFERENCE = "docs/reference/policies.md"


def policies_of(rules: Iterable[Rule]) -> Iterator[Policy]:
    """A policy for each rule."""
    for rule in rules:
        described: dict[str, Any] = {
            "name": rule.id,
            "display_name": rule.title,
            "description": rule.title,
            "enforcement_level": EnforcementLevel(rule.enforcement.value),
            "remediation_steps": rule.remedy,
        }
        if rule.resource is not None:
            yield ResourceValidationPolicy(validate=_resource(rule, rule.resource), **described)
        if rule.stack is not None:
            yield StackValidationPolicy(validate=_stack(rule, rule.stack), **described)


def _resource(rule: Rule, validator: Validator) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if found := list(validator(args.resource_type, plain(args.props))):
            report(_message(rule, found), None)

    return validate


def _stack(rule: Rule, validator: StackValidator) -> Callable[[StackValidationArgs, ReportViolation], None]:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        found: dict[str, list[Violation]] = {}
        for resource, violation in validator([declared(resource) for resource in args.resources]):
            found.setdefault(resource.urn, []).append(violation)
        for urn, violations in found.items():
            report(_message(rule, violations), urn)

    return validate


def declared(resource: PolicyResource) -> Declared:
    """A stack's resource as rules see it."""
    return Declared(
        urn=resource.urn,
        type=resource.resource_type,
        name=resource.name,
        properties=plain(resource.props),
        dependencies={
            name: [source.urn for source in sources]
            for name, sources in resource.property_dependencies.items()
        },
    )


def plain(value: Any) -> Any:
    """A policy's view of properties as plain data, in which UNKNOWN stands for what only the update will know.

    The view raises wherever such a value is touched, and would so keep a rule from what is known beside it.
    """
    if hasattr(value, "items"):
        return {key: _entry(value, key) for key in value}
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return value
    return [_entry(value, index) for index in range(len(value))]


def _entry(view: Any, key: Any) -> Any:
    try:
        return plain(view[key])
    except UnknownValueError:
        return UNKNOWN


def _message(rule: Rule, violations: Iterable[Violation]) -> str:
    return "\n".join([*map(str, violations), rule.remedy])
