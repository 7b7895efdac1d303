"""Reading an environment's settings, and saying in plain words what is wrong with them and where."""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from stacks.settings import NAMESPACE, EnvironmentSettings

_FOREIGN = frozenset({"aws", "kubernetes", "pulumi"})
"""Namespaces of Pulumi itself and of providers; they check their keys themselves."""


class InvalidSettingsError(Exception):
    """An environment's settings are wrong; the message lists every place, what is wrong, and the remedy."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{source} is not valid:{lines}\nAll settings: docs/reference/settings.md")


def read_environment(path: Path) -> EnvironmentSettings:
    """The settings in an environment's file.

    Raises:
        InvalidSettingsError: unreadable file, unknown key, impossible value.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        known = sorted(file.name.split(".")[1] for file in path.parent.glob("Pulumi.*.yaml"))
        hint = (
            f"environments are {', '.join(known)}" if known else f"there is no environment in {path.parent}"
        )
        raise InvalidSettingsError(str(path), [f"there is no such file; {hint}"]) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidSettingsError(str(path), [" ".join(str(error).split())]) from None
    config = (document or {}).get("config") if isinstance(document or {}, dict) else document
    if config is None:
        config = {}
    if not isinstance(config, dict):
        raise InvalidSettingsError(str(path), [f"`config` is {config!r}; it must hold `{NAMESPACE}:…` keys"])
    return settings_from({str(key): value for key, value in config.items()}, source=str(path))


def settings_from(config: Mapping[str, Any], *, source: str) -> EnvironmentSettings:
    """The settings in a stack's configuration.

    Args:
        config: by full key (``marketlake:ports``) or by bare key. Pulumi hands a program texts, in which
            objects are JSON; a file holds the values themselves. Both are understood.
        source: where it comes from, for messages.

    Raises:
        InvalidSettingsError: unknown key, impossible value.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for full_key, value in config.items():
        namespace, _, key = full_key.rpartition(":")
        namespace = namespace or NAMESPACE
        if namespace == NAMESPACE:
            if isinstance(value, dict) and set(value) == {"secure"}:
                problems.append(
                    f"{full_key}: is encrypted, but no setting is secret: set it without --secret"
                )
                continue
            values[key] = _decoded(value)
        elif namespace not in _FOREIGN:
            problems.append(_unknown(f"{full_key}: unknown namespace", namespace, [NAMESPACE, *_FOREIGN]))
    try:
        settings = EnvironmentSettings.model_validate(values)
    except ValidationError as error:
        problems += [_in_words(problem) for problem in error.errors(include_url=False)]
    if problems:
        raise InvalidSettingsError(source, problems)
    return settings


def place(location: tuple[int | str, ...]) -> str:
    """Where a setting stands, as `pulumi config set --path` wants it: ``marketlake:ports.objectStore``."""
    return f"{NAMESPACE}:{'.'.join(map(str, location))}"


def section_at(location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model of the section at a location; None where a single setting is."""
    model: type[BaseModel] = EnvironmentSettings
    for step in location:
        field = next((field for field in model.model_fields.values() if field.alias == step), None)
        inner = next(_models(field.annotation), None) if field else None
        if inner is None:
            return None
        model = inner
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if get_origin(annotation) in (Union, UnionType):
        for option in get_args(annotation):
            yield from _models(option)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


def _in_words(problem: ErrorDetails) -> str:
    location = problem["loc"]
    where = place(location)
    section = section_at(location[:-1])
    if problem["type"] == "extra_forbidden" and section is not None:
        allowed = [field.alias or name for name, field in section.model_fields.items()]
        return _unknown(f"{where}: unknown key", str(location[-1]), allowed)
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] == "model_type":
        inside = section_at(location)
        keys = [field.alias or name for name, field in inside.model_fields.items()] if inside else []
        message = f"should be an object with some of the keys {', '.join(keys)}"
    if isinstance(problem["input"], dict):
        return f"{where}: {message}"
    return f"{where}: {problem['input']!r} {message}"


def _unknown(what: str, given: str, allowed: list[str]) -> str:
    folded = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(given.lower().replace("-", "").replace("_", ""), folded, n=1, cutoff=0.6)
    hint = f" Did you mean {folded[near[0]]}?" if near else ""
    return f"{what}.{hint} Allowed: {', '.join(sorted(allowed))}."


def _decoded(value: Any) -> Any:
    """What Pulumi hands over as JSON text, as the object that it is."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
