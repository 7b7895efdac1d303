"""A secret that is generated once and lives, encrypted, in Pulumi's state."""

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar, NotRequired, TypedDict

import pulumi
from pulumi.dynamic import Resource, UpdateResult
from pydantic import Field

from components.providers.base import Inputs, Provider, Record


class GeneratedSecretArgs(TypedDict):
    """Arguments of a secret."""

    length: NotRequired[pulumi.Input[int]]
    """Optional: 32 characters when omitted; each carries six bits."""
    rotation: NotRequired[pulumi.Input[str]]
    """Optional: any text; a new one generates a new secret."""


class GeneratedSecretInputs(Inputs):
    """The resolved :class:`GeneratedSecretArgs`."""

    length: int = Field(default=32, ge=16, le=128)
    rotation: str = ""


class GeneratedSecretProvider(Provider[GeneratedSecretInputs, Record]):
    """Secrets of letters, digits, ``-`` and ``_``, which need quoting nowhere."""

    VERSION: ClassVar[str] = "1"
    model = GeneratedSecretInputs
    record = Record
    identity = frozenset()

    def resource_id(self, declared: GeneratedSecretInputs) -> str:
        """The same for all: there is nothing outside the state that an id could name."""
        del declared
        return "secret"

    def apply(self, declared: GeneratedSecretInputs) -> Mapping[str, Any]:
        """Generate the secret."""
        return {"value": secrets.token_urlsafe(declared.length)[: declared.length]}

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Generate it again if that is declared; a new version of this provider alone is no reason to."""
        result = super().update(_id, _olds, _news)
        if all(_olds.get(key) == _news.get(key) for key in ("length", "rotation")) and result.outs:
            result.outs["value"] = _olds["value"]
        return result

    def observe(self, recorded: Record) -> Mapping[str, Any]:
        """Return nothing: it exists in the state alone."""
        del recorded
        return {}

    def remove(self, recorded: Record) -> None:
        """Do nothing: the secret exists in the state alone."""


class GeneratedSecret(Resource, module="marketlake", name="GeneratedSecret"):
    """A generated secret."""

    value: pulumi.Output[str]
    """A Pulumi secret."""

    def __init__(
        self, name: str, args: GeneratedSecretArgs | None = None, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare a secret under the resource name `name`."""
        super().__init__(
            GeneratedSecretProvider(),
            name,
            {**(args or {}), "value": None, "version": GeneratedSecretProvider.VERSION},
            pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(additional_secret_outputs=["value"])),
        )
