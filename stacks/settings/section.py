"""What the settings of all sections are made of."""

import re
import ssl
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from components.providers.bucket import BUCKET_NAME

_MEMORY_LIMIT_MIB = 1_048_576
DISK_LIMIT_MIB = 1_073_741_824
_CPU_LIMIT_MILLIS = 256_000

PortNumber = Annotated[int, Field(ge=1024, le=65535)]
MemoryMib = Annotated[int, Field(ge=64, le=_MEMORY_LIMIT_MIB)]
LargeMemoryMib = Annotated[int, Field(ge=256, le=_MEMORY_LIMIT_MIB)]
CpuMillis = Annotated[int, Field(ge=10, le=_CPU_LIMIT_MILLIS)]


def matching(pattern: str, what: str) -> AfterValidator:
    """Text that matches a pattern as a whole; else the error says what it is not."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"is no {what}")
        return text

    return AfterValidator(check)


BucketName = Annotated[
    str, matching(BUCKET_NAME, "bucket name: 3 to 63 lower-case letters, digits, dots and hyphens")
]
ObjectName = Annotated[
    str,
    matching(
        r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?",
        "name of a Kubernetes object: lower-case letters, digits, dots and hyphens",
    ),
]
BaseUrl = Annotated[
    str,
    matching(
        r"https?://[^/\s]+",
        "base URL: scheme, host and perhaps a port, e.g. https://s3.example.com",
    ),
]
HostName = Annotated[
    str, matching(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?", "host name or address, e.g. db.example.com")
]


def _check_certificates(text: str) -> str:
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError(
            "holds no certificate: give PEM text, which begins with -----BEGIN CERTIFICATE-----"
        ) from None
    return text


Certificates = Annotated[str, AfterValidator(_check_certificates)]
"""Certificates in PEM, one after the other."""


class Section(BaseModel):
    """A group of settings. Keys are written in camel case, as Pulumi's own."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, use_attribute_docstrings=True
    )


class Secret:
    """A text that nobody is to see.

    A file holds it encrypted, as ``{secure: …}``; Pulumi hands the program the text itself. Either is taken, so that
    a file can be checked by whoever lacks the passphrase.
    """

    def __init__(self, text: str | None) -> None:
        self._text = text

    @property
    def is_encrypted(self) -> bool:
        """It is there, and cannot be read here."""
        return self._text is None

    @property
    def text(self) -> str:
        """The secret itself.

        Raises:
            ValueError: it came from a file, encrypted: only Pulumi can read it.
        """
        if self._text is None:
            raise ValueError("an encrypted secret can be read by the Pulumi program alone")
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Pydantic's way to read one."""
        del source, handler
        return core_schema.no_info_plain_validator_function(cls._read)

    @classmethod
    def _read(cls, value: Any) -> "Secret":
        if isinstance(value, Secret):
            return value
        if isinstance(value, dict) and set(value) == {"secure"} and isinstance(value["secure"], str):
            return cls(None)
        if not isinstance(value, str) or not value:
            raise ValueError("should be a secret text that is not empty")
        return cls(value)
