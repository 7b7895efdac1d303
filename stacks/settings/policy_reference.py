"""docs/reference/policies.md, written from the rules: `make reference`."""

from collections.abc import Iterator

from policies.rules import RULES, Rule
from stacks.settings.reference import REFERENCE

POLICIES = REFERENCE.with_name("policies.md")
_HEAD = """\
<!-- Written by `make reference` from policies/rules: change it there. -->
# Policies

What no environment may do. How they run, and how an exception is declared: [policies](../policies.md).

| rule | what holds | level | looks at |
|---|---|---|---|
"""


def policies_reference() -> str:
    """The page, as Markdown."""
    return _HEAD + "\n".join([*map(_row, RULES), *(line for rule in RULES for line in _section(rule))]) + "\n"


def _row(rule: Rule) -> str:
    looks = "one resource" if rule.resource else "the whole stack"
    return f"| [`{rule.id}`](#{rule.id}) | {rule.title} | {rule.enforcement} | {looks} |"


def _section(rule: Rule) -> Iterator[str]:
    yield from ("", f"## {rule.id}", "", f"{rule.title}. {rule.why}", "", f"**To keep it:** {rule.remedy}")
