"""Prints the packages that a Python has, as JSON; run by that Python, which needs neither pip nor this project."""

import json
import re
import sys
from importlib.metadata import Distribution, distributions

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def listed(found: list[Distribution], *, all_of_them: bool) -> list[dict[str, str]]:
    """Name and version of each distribution, sorted; unless all are asked for, without those that another requires."""
    required = {
        _normal(match.group())
        for each in found
        for requirement in each.requires or []
        if "extra ==" not in requirement and (match := _NAME.match(requirement))
    }
    entries = {_normal(each.metadata["Name"]): each.version for each in found if each.metadata["Name"]}
    return [
        {"name": name, "version": version}
        for name, version in sorted(entries.items())
        if all_of_them or name not in required
    ]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    print(json.dumps(listed(list(distributions()), all_of_them="--all" in sys.argv)))
