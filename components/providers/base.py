"""The behaviour that all dynamic resources share, so that each provider says only what is particular to it.

A provider declares the model of its inputs and three verbs: :meth:`Provider.apply` (bring the world to what
is declared, whether it exists or not), :meth:`Provider.observe` (what is there) and :meth:`Provider.remove`.
Create and update are both `apply`, so a resource that a killed `pulumi up` created without recording it is
adopted by the next run. `observe` answers in the terms of the inputs, so `pulumi refresh` shows drift and the
next `pulumi up` repairs it.

What is declared is checked strictly. What is recorded is not: it is what a refresh found, or what an older version
declared. So `observe` and `remove` get a :class:`Record`, which holds no more than what names the resource and how
its server is reached, and whatever else the state says is compared and handed on as it is.
"""

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    ResourceProvider,
    UpdateResult,
)
from pulumi.runtime.rpc import UNKNOWN
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from components.providers.orphan import end_with_engine

RESERVED = "__provider"
"""Where Pulumi keeps the pickled provider among the properties."""
DRIFT = "drift"
"""The output by which `observe` says, in words, what differs from the declaration where no input can show it. As long
as it is recorded the resource counts as changed, so that the next `pulumi up` applies the declaration again."""


class ResourceError(Exception):
    """A resource cannot be brought to what is declared; the message says what happened and what to do."""


class UnreachableError(ResourceError):
    """The server behind a resource does not answer."""


class Record(BaseModel):
    """What is needed of a recorded resource to look at it and to take it away: its identity, and a connection.

    Its fields take whatever was observed or declared before; what it does not know is left out before it is made.
    Values never appear in validation errors: they may be secrets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Inputs(Record):
    """What is declared of a resource: its record's fields, with all that is to be true of them, and the others."""

    version: str
    """Version of the provider's behaviour; a new one makes Pulumi apply unchanged declarations again."""


Declared = TypeVar("Declared", bound=Inputs)
Recorded = TypeVar("Recorded", bound=Record)


class Provider(ResourceProvider, ABC, Generic[Declared, Recorded]):
    """A dynamic provider for one kind of resource, declared by the model `Declared`, found again by `Recorded`."""

    serialize_as_secret_always = False  # the pickle is a class by reference: there is no secret in it
    model: ClassVar[type[Inputs]]
    record: ClassVar[type[Record]]
    identity: ClassVar[frozenset[str]]
    """Inputs that name the resource: a change of one means another resource."""

    @abstractmethod
    def resource_id(self, declared: Declared) -> str:
        """The resource's id in the state."""

    @abstractmethod
    def apply(self, declared: Declared) -> Mapping[str, Any]:
        """Create the resource, or bring an existing one to what is declared. Repeating it changes nothing.

        Returns:
            Outputs beyond the inputs.

        Raises:
            ResourceError: it cannot be done.
        """

    @abstractmethod
    def observe(self, recorded: Recorded) -> Mapping[str, Any] | None:
        """Return what exists now: the inputs whose live values can be seen, and the outputs. None if it does not exist.

        A value may be one that could not be declared. An input of `identity` stays as it is recorded, whatever is
        observed: it is what the resource was found by. A difference that no input shows is returned as `DRIFT`.

        Raises:
            UnreachableError: nobody can tell.
        """

    @abstractmethod
    def remove(self, recorded: Recorded) -> None:
        """Delete the resource; it is no error if it does not exist.

        Raises:
            ResourceError: it cannot be done.
        """

    def replaced_by(self, recorded: Mapping[str, Any], declared: Mapping[str, Any]) -> list[str]:
        """Return changed inputs that need a replacement, beyond `identity`."""
        del recorded, declared
        return []

    # What Pulumi calls

    def configure(self, req: ConfigureRequest) -> None:
        """End with the engine, and keep stack traces for defects: an expected error is its message alone."""
        del req
        end_with_engine()
        log = logging.getLogger("grpc._server")
        if not any(isinstance(known, _WithoutTrace) for known in log.filters):
            log.addFilter(_WithoutTrace())

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Validate the declaration and fill in defaults; with values still unknown, let it pass as it is."""
        if _holds_unknown(news):
            return CheckResult(self._defaults() | news, [])
        try:
            declared = self.model.model_validate(_plain(news))
        except ValidationError as error:
            failures = [
                CheckFailure(".".join(map(str, problem["loc"])) or "(declaration)", problem["msg"])
                for problem in error.errors(include_input=False, include_url=False)
            ]
            return CheckResult(news, failures)
        return CheckResult(declared.model_dump(mode="json"), [])

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Compare the declaration with the recorded state. Pulumi records no None: absent is the same."""
        recorded, declared = _plain(_olds), _plain(_news)
        changed = [key for key in self.model.model_fields if recorded.get(key) != declared.get(key)]
        drifted = bool(recorded.get(DRIFT))
        replaced = sorted(self.identity.intersection(changed))
        if changed and not _holds_unknown(declared):
            replaced += [key for key in self.replaced_by(recorded, declared) if key not in replaced]
        return DiffResult(changes=bool(changed) or drifted, replaces=replaced, delete_before_replace=True)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Create or adopt."""
        declared = self._parse(props)
        outputs = self.apply(declared)
        return CreateResult(self.resource_id(declared), {**declared.model_dump(mode="json"), **outputs})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Bring to what is declared."""
        declared = self._parse(_news)
        outputs = self.apply(declared)
        return UpdateResult({**declared.model_dump(mode="json"), **outputs})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Look at the world. When nobody can tell, what is recorded stands, and a warning says so."""
        properties = _plain(props)
        try:
            live = self.observe(self._record(properties))
        except UnreachableError as error:
            warn(f"{error} What is recorded of {id_!r} was kept unseen.")
            return ReadResult(id_, properties)
        if live is None:
            return ReadResult("", {})
        seen = {key: value for key, value in live.items() if key not in self.identity}
        known = self._defaults() | {
            key: properties[key] for key in self.model.model_fields if key in properties
        }
        inputs = known | {key: value for key, value in seen.items() if key in self.model.model_fields}
        outputs = {key: value for key, value in properties.items() if key != DRIFT}
        return ReadResult(id_, outputs | inputs | seen, inputs)

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Take away."""
        self.remove(self._record(_props))

    def _defaults(self) -> dict[str, Any]:
        return {
            key: to_jsonable_python(field.get_default(call_default_factory=True))
            for key, field in self.model.model_fields.items()
            if not field.is_required()
        }

    def _parse(self, properties: Mapping[str, Any]) -> Declared:
        """The declaration, in all strictness; outputs may lie among its properties."""
        fields = self.model.model_fields
        known = {key: value for key, value in _plain(properties).items() if key in fields}
        return self._made(self.model, known)  # type: ignore[return-value]  # `model` is Declared's class

    def _record(self, properties: Mapping[str, Any]) -> Recorded:
        """The record within the state's properties."""
        return self._made(self.record, _known_to(self.record, _plain(properties)))  # type: ignore[return-value]  # as above

    def _made(self, model: type[Record], values: Mapping[str, Any]) -> Record:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                for problem in error.errors(include_input=False, include_url=False)
            )
            raise ResourceError(f"{type(self).__name__} cannot use its properties: {problems}") from None


class _WithoutTrace(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the server's log of an expected error: Pulumi prints the message itself."""
        return not (record.exc_info and isinstance(record.exc_info[1], ResourceError))


def warn(message: str) -> None:
    """Print a warning: Pulumi shows a provider's stderr among its diagnostics."""
    sys.stderr.write(f"warning: {message}\n")
    sys.stderr.flush()


def _plain(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The properties as they were declared: without Pulumi's own, and with whole numbers as such.

    Pulumi hands every number on as a float.
    """
    return {key: _whole(value) for key, value in properties.items() if key != RESERVED}


def _whole(value: Any) -> Any:
    match value:
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _known_to(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `values` that `model`, and the models of its fields, have a field for, or take without one."""
    known: dict[str, Any] = dict(values) if model.model_config.get("extra") == "allow" else {}
    for name, field in model.model_fields.items():
        if name in values:
            inner, value = field.annotation, values[name]
            if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, Mapping):
                value = _known_to(inner, value)
            known[name] = value
    return known


def _holds_unknown(value: Any) -> bool:
    match value:
        case dict():
            return any(_holds_unknown(item) for item in value.values())
        case list() | tuple():
            return any(_holds_unknown(item) for item in value)
        case _:
            return bool(value == UNKNOWN) or type(value).__name__ == "Unknown"
