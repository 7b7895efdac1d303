"""Secrets in places that every reader of the cluster, or of the process list, can read."""

import re
from collections.abc import Iterator

from policies.rules.pods import containers_of, literals_of
from policies.rules.reading import items_at, pairs_at, written
from policies.rules.rule import Properties, Rule, Violation

_SECRET_WORDS = ("PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "CREDENTIALS")
_OPEN_KEYS = frozenset({"PUBLIC", "PARTITION", "ROUTING", "SORT", "CACHE", "PRIMARY", "FOREIGN"})
_FILE = re.compile(r"(?:/[\w.-]+)+")
_WORDS = "password|passwd|passphrase|secret|token|secret[_-]?key|api[_-]?key"
_URL_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@]*:(?!\$[({]|%[({]|@)[^\s/@]+@", re.IGNORECASE)
_OPTION = re.compile(rf"--?(?:[a-z0-9-]*-)?(?:{_WORDS})=(?!\$[({{]|/).+")
_SETTING = re.compile(rf"\b[\w.-]*(?:{_WORDS})[\"']?\s*[:=]\s*[\"']?(?P<value>[^\s\"'#]+)", re.IGNORECASE)
_NO_SECRET = re.compile(r"[$%{/]|(?:true|false|null|none|yes|no|\d+)[,;]?$", re.IGNORECASE)
"""Begins a setting's value that stands for something else, or is none: a variable, a file, a switch."""


def plain_secrets(resource_type: str, properties: Properties) -> Iterator[Violation]:
    """No secret is written into variables, command lines or ConfigMaps."""
    variables = list(literals_of(resource_type, properties))
    names = {name for _, name, _ in variables}
    for where, name, value in variables:
        if value and _holds_secret(name, value, names):
            yield Violation(where, f"{name} has its value written out; take it from a Secret (valueFrom)")
        elif _URL_WITH_PASSWORD.search(value):
            yield Violation(
                where, f"{name} is an URL with a password in it; take it from a Secret (valueFrom)"
            )
    for container in containers_of(resource_type, properties):
        for part in ("command", "args"):
            for index, argument in items_at(container.spec, part):
                if isinstance(argument, str) and (
                    _OPTION.match(argument) or _URL_WITH_PASSWORD.search(argument)
                ):
                    yield container.violation("holds a password; hand it over in a file", part, index)
    if resource_type == "kubernetes:core/v1:ConfigMap":
        yield from _in_files(properties)


def names_secret(name: str) -> bool:
    """Whether a variable, a setting or a property of this name holds a secret itself.

    The last word decides: POSTGRES_PASSWORD and secretAccessKey do, POSTGRES_PASSWORD_FILE, TOKEN_LIFETIME and
    PUBLIC_KEY do not.
    """
    words = re.split(r"[^A-Z0-9]+", name.upper())
    if words[-1] == "KEY":
        return len(words) > 1 and words[-2] not in _OPEN_KEYS
    return words[-1].endswith(_SECRET_WORDS) or words[-2:] == ["AUTH", "STRING"]


def _holds_secret(name: str, value: str, names: set[str]) -> bool:
    # Which entry of which Secret: `X_SECRET_NAME` and `X_SECRET_KEY`.
    is_reference = name.endswith("KEY") and f"{name[:-3]}NAME" in names
    return names_secret(name) and not is_reference and not _FILE.fullmatch(value)


def _in_files(properties: Properties) -> Iterator[Violation]:
    for name, text in pairs_at(properties, "data"):
        if not isinstance(text, str):
            continue
        where = written("data", name)
        if _URL_WITH_PASSWORD.search(text):
            yield Violation(where, "holds an URL with a password; move it to a Secret")
        for setting in _SETTING.finditer(text):
            if not _NO_SECRET.match(setting["value"]):
                line = text.count("\n", 0, setting.start("value")) + 1
                yield Violation(where, f"line {line} sets a secret; move it to a Secret")


RULES = (
    Rule(
        id="no-plain-secret",
        title="No secret stands in plain sight",
        why="Variables, command lines and ConfigMaps are read by everybody who may look at a workload, and end in "
        "logs and backups.",
        remedy="Put the value into a Secret, and take it from there with valueFrom or a mounted file.",
        resource=plain_secrets,
    ),
)
