"""The behaviour that all dynamic resources share, so that each provider says only what is particular to it.

A provider declares the model of its inputs and three verbs: :meth:`Provider.apply` (bring the world to what
is declared, whether it exists or not), :meth:`Provider.observe` (what is there) and :meth:`Provider.remove`.
Create and update are both `apply`, so a resource that a killed `pulumi up` created without recording it is
adopted by the next run. `observe` answers in the terms of the inputs, so `pulumi refresh` shows drift and the
next `pulumi up` repairs it.
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


class ResourceError(Exception):
    """A resource cannot be brought to what is declared; the message says what happened and what to do."""


class UnreachableError(ResourceError):
    """The server behind a resource does not answer."""


class Inputs(BaseModel):
    """The declared inputs of a resource. Values never appear in validation errors: they may be secrets."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    version: str
    """Version of the provider's behaviour; a new one makes Pulumi apply unchanged declarations again."""


Declared = TypeVar("Declared", bound=Inputs)


class Provider(ResourceProvider, ABC, Generic[Declared]):
    """A dynamic provider for one kind of resource, declared by the model `Declared`."""

    serialize_as_secret_always = False  # the pickle is a class by reference: there is no secret in it
    model: ClassVar[type[Inputs]]
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
    def observe(self, declared: Declared) -> Mapping[str, Any] | None:
        """Return what exists now: the inputs whose live values can be seen, and the outputs. None if it does not exist.

        Raises:
            UnreachableError: nobody can tell.
        """

    @abstractmethod
    def remove(self, declared: Declared) -> None:
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
            declared = self.model.model_validate(_without_reserved(news))
        except ValidationError as error:
            failures = [
                CheckFailure(".".join(map(str, problem["loc"])) or "(declaration)", problem["msg"])
                for problem in error.errors(include_input=False, include_url=False)
            ]
            return CheckResult(news, failures)
        return CheckResult(declared.model_dump(mode="json"), [])

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Compare the declaration with the recorded state. Pulumi records no None: absent is the same."""
        declared = _without_reserved(_news)
        changed = [key for key in self.model.model_fields if _olds.get(key) != declared.get(key)]
        replaced = sorted(self.identity.intersection(changed))
        if changed and not _holds_unknown(declared):
            replaced += [key for key in self.replaced_by(_olds, declared) if key not in replaced]
        return DiffResult(changes=bool(changed), replaces=replaced, delete_before_replace=True)

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
        recorded = self._parse(props)
        try:
            live = self.observe(recorded)
        except UnreachableError as error:
            warn(f"{error} What is recorded of {id_!r} was kept unseen.")
            return ReadResult(id_, _without_reserved(props))
        if live is None:
            return ReadResult("", {})
        known = recorded.model_dump(mode="json")
        inputs = known | {key: value for key, value in live.items() if key in known}
        return ReadResult(id_, _without_reserved(props) | inputs | dict(live), inputs)

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Take away."""
        self.remove(self._parse(_props))

    def _defaults(self) -> dict[str, Any]:
        return {
            key: to_jsonable_python(field.get_default(call_default_factory=True))
            for key, field in self.model.model_fields.items()
            if not field.is_required()
        }

    def _parse(self, properties: Mapping[str, Any]) -> Declared:
        """The declaration within the state's properties, among outputs and perhaps older inputs."""
        fields = self.model.model_fields
        known = {key: value for key, value in properties.items() if key in fields}
        try:
            return self.model.model_validate(known)  # type: ignore[return-value]  # `model` is Declared's class
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


def _without_reserved(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in properties.items() if key != RESERVED}


def _holds_unknown(value: Any) -> bool:
    match value:
        case dict():
            return any(_holds_unknown(item) for item in value.values())
        case list() | tuple():
            return any(_holds_unknown(item) for item in value)
        case _:
            return bool(value == UNKNOWN) or type(value).__name__ == "Unknown"
