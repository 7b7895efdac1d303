"""Reading an environment's settings, and saying in plain words what is wrong with them and where."""

import difflib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from stacks.settings.consistency import inconsistencies, missing_secrets
from stacks.settings.environment import NAMESPACE, EnvironmentSettings
from stacks.settings.section import Secret

_KEY = "[key]"
"""What pydantic puts behind the place of a dictionary's key."""
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
    whole = {str(key): value for key, value in config.items()}
    return settings_from(whole, source=str(path), encrypted=())


def settings_from(
    config: Mapping[str, Any], *, source: str, encrypted: Collection[str] | None = None
) -> EnvironmentSettings:
    """The settings in a stack's configuration.

    Args:
        config: by full key (``marketlake:ports``) or by bare key. Pulumi hands a program texts, in which
            objects are JSON; a file holds the values themselves. Both are understood.
        source: where it comes from, for messages.
        encrypted: full keys of which the source encrypts something; in all others a secret must not be readable.
            None: it is not known, and nothing is refused for that.

    Raises:
        InvalidSettingsError: unknown key, impossible value, settings that contradict each other, a secret in plain
            text.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for full_key, value in config.items():
        namespace, _, key = full_key.rpartition(":")
        namespace = namespace or NAMESPACE
        if namespace == NAMESPACE:
            if isinstance(value, dict) and set(value) == {"secure"}:
                problems.append(
                    f"{full_key}: is encrypted, and it is no secret itself: set it without --secret"
                )
                continue
            values[key] = _decoded(value)
        elif namespace not in _FOREIGN:
            problems.append(_unknown(f"{full_key}: unknown namespace", namespace, [NAMESPACE, *_FOREIGN]))
    try:
        settings = EnvironmentSettings.model_validate(values)
    except ValidationError as error:
        problems += [_in_words(problem) for problem in error.errors(include_url=False)]
    else:
        problems += [f"{key_of(found.location)}: {found.message}" for found in inconsistencies(settings)]
        if encrypted is not None:
            problems += [
                f"{key_of(location)}: is a secret in plain text: `{_setting_of_secret(location)}` encrypts it"
                for location, secret in secrets_in(settings)
                if not secret.is_encrypted and f"{NAMESPACE}:{location[0]}" not in encrypted
            ]
    if problems:
        raise InvalidSettingsError(source, problems)
    return settings


def secrets_in(section: BaseModel) -> Iterator[tuple[tuple[str, ...], Secret]]:
    """The secrets that are given in a section and the sections within, each with the keys on the way to it."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), field.alias or name
        if isinstance(value, Secret):
            yield (key,), value
        elif isinstance(value, BaseModel):
            for location, secret in secrets_in(value):
                yield (key, *location), secret


def require_secrets(settings: EnvironmentSettings, environment: str, *, source: str) -> None:
    """Make sure that nothing has to be asked for.

    Raises:
        InvalidSettingsError: secrets are missing; the message has the commands that set them.
    """
    if missing := missing_secrets(settings):
        raise InvalidSettingsError(
            source,
            [
                f"{key_of(location)}: is missing: `{_setting_of_secret(location)} --stack {environment}` asks for it"
                for location in missing
            ],
        )


def key_of(location: tuple[int | str, ...]) -> str:
    """Where a setting stands, as `pulumi config set --path` wants it: ``marketlake:ports.objectStore``."""
    return f"{NAMESPACE}:{'.'.join(str(step) for step in location if step != _KEY)}"


def section_at(location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model of the section at a location; None where a single setting is."""
    kind = kind_at(location)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def kind_at(location: tuple[int | str, ...]) -> Any:
    """The type of what stands at a location, ``… | None`` taken away; None where nothing can stand."""
    kind: Any = EnvironmentSettings
    for step in location:
        if get_origin(kind) is dict:
            kind = _present(get_args(kind)[1])
            continue
        fields = kind.model_fields.values() if hasattr(kind, "model_fields") else ()
        field = next((field for field in fields if field.alias == step), None)
        if field is None:
            return None
        kind = _present(field.annotation)
    return kind


def _present(annotation: Any) -> Any:
    """The type without ``| None`` and without constraints."""
    if get_origin(annotation) in (Union, UnionType):
        return _present(next(option for option in get_args(annotation) if option is not type(None)))
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation


def _setting_of_secret(location: tuple[int | str, ...]) -> str:
    return f"pulumi config set --secret --path {key_of(location)}"


def _in_words(problem: ErrorDetails) -> str:
    location = problem["loc"]
    where = key_of(location)
    section = section_at(location[:-1])
    if problem["type"] == "extra_forbidden" and section is not None:
        allowed = [field.alias or name for name, field in section.model_fields.items()]
        return _unknown(f"{where}: unknown key", str(location[-1]), allowed)
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] == "model_type":
        inside = section_at(location)
        keys = [field.alias or name for name, field in inside.model_fields.items()] if inside else []
        message = f"should be an object with some of the keys {', '.join(keys)}"
    if isinstance(problem["input"], dict) or _may_hold_secrets(location):
        return f"{where}: {message}"
    return f"{where}: {problem['input']!r} {message}"


def _may_hold_secrets(location: tuple[int | str, ...]) -> bool:
    """Whether a secret can stand there, or within: then nobody is shown what does."""
    return _holds_secrets(kind_at(location))


def _holds_secrets(kind: Any) -> bool:
    if kind is Secret:
        return True
    fields = kind.model_fields.values() if hasattr(kind, "model_fields") else ()
    return any(_holds_secrets(_present(field.annotation)) for field in fields)


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
