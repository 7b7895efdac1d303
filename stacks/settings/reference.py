"""docs/reference/settings.md, written from the schema: `make reference`."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefinedType

from stacks.settings.environment import NAMESPACE, EnvironmentSettings
from stacks.settings.section import Secret

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "settings.md"

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "text", Path: "path", Secret: "secret"}
_HEAD = f"""\
<!-- Written by `make reference` from stacks/settings/environment.py: change it there. -->
# Settings of an environment

An environment is a file `stacks/environments/Pulumi.<environment>.yaml`. Its `config` holds the keys below;
what it leaves out is at its default, and the file of the local environment names nothing but its target. For
example:

```yaml
config:
  {NAMESPACE}:target: host
  {NAMESPACE}:collection:
    workers: 4
  {NAMESPACE}:venue:
    endpoint: https://s3-ap-northeast-1.amazonaws.com
```

`pulumi config set --path {NAMESPACE}:collection.workers 4` writes the same. `make validate
ENV=<environment>` checks a file without touching anything: an unknown key or an impossible value anywhere is
an error that names the place, what is allowed, and the nearest key. A change takes effect with the next
`make up` or `pulumi up`.
"""


def settings_reference() -> str:
    """The page, as Markdown."""
    return "\n".join(_lines()) + "\n"


def write_reference(path: Path = REFERENCE) -> bool:
    """Write the page; True if that changed it."""
    return write_page(path, settings_reference())


def write_page(path: Path, page: str) -> bool:
    """Write a generated page; True if that changed it."""
    if path.exists() and path.read_text() == page:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    return True


def _lines() -> Iterator[str]:
    yield _HEAD
    fields = EnvironmentSettings.model_fields.values()
    yield from _table([(f"{NAMESPACE}:{field.alias}", field) for field in fields if not _section(field)])
    yield from _sections(EnvironmentSettings, NAMESPACE + ":")


def _sections(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """The sections of a model, each followed by the sections within it."""
    for field in model.model_fields.values():
        section = _section(field)
        if section is None:
            continue
        name = f"{prefix}{field.alias}{'.<program>' if _is_mapping(field) else ''}"
        what = " ".join((field.description or section.__doc__ or "").split())
        yield from ("", f"## `{name}`", "", what, "")
        inner = [(key.alias or "", key) for key in section.model_fields.values() if not _section(key)]
        yield from _table(inner)
        yield from _sections(section, f"{name}.")


def _table(rows: list[tuple[str, FieldInfo]]) -> Iterator[str]:
    yield "| key | type | default | what |"
    yield "|---|---|---|---|"
    for key, field in rows:
        what = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{key}` | {_type(field)} | {_default(_default_of(field))} | {what} |"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind, _ = _unwrapped(field.annotation, [])
    if get_origin(kind) is dict:
        kind = get_args(kind)[1]
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _is_mapping(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is dict


def _type(field: FieldInfo) -> str:
    kind, metadata = _unwrapped(field.annotation, list(field.metadata))
    if get_origin(kind) is dict:
        return "texts by name"
    if get_origin(kind) is list:
        return "list of texts"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(f"`{member.value}`" for member in kind)
    low = next((bound for bound in metadata if isinstance(bound, Ge | Gt)), None)
    high = next((bound for bound in metadata if isinstance(bound, Le | Lt)), None)
    text = _TYPES[kind]
    if isinstance(low, Ge):
        text += f", at least {low.ge}" if high is None else f", {low.ge} to {_upper(high)}"
    elif isinstance(low, Gt):
        text += f", above {low.gt}" if high is None else f", above {low.gt}, at most {_upper(high)}"
    return text


def _upper(bound: Le | Lt) -> Any:
    return bound.le if isinstance(bound, Le) else bound.lt


def _unwrapped(annotation: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """The type within ``Annotated[…]`` and ``… | None``, with the constraints that were met on the way."""
    if get_origin(annotation) in (Union, UnionType):
        inner = next(option for option in get_args(annotation) if option is not type(None))
        return _unwrapped(inner, metadata)
    if hasattr(annotation, "__metadata__"):
        nested = [item for entry in annotation.__metadata__ for item in getattr(entry, "metadata", [entry])]
        return _unwrapped(annotation.__origin__, metadata + nested)
    return annotation, metadata


def _default_of(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _default(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case PydanticUndefinedType():
            return "has to be given"
        case dict() | list():
            return "none"
        case Enum():
            return f"`{value.value}`"
        case _:
            return f"`{value}`"
