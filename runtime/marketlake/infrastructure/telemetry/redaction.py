"""Keep secrets out of log records and spans, whoever writes them."""

import logging
import re
import traceback
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, SecretStr

MASK = "***"
_SHORTEST = 6
"""Shorter values are not looked for by value: they would be found inside ordinary words."""
_PATTERNS = (
    (
        re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+(?=@)", re.IGNORECASE),
        rf"\g<keep>{MASK}",
    ),
    (
        re.compile(
            r"(?P<keep>\bauthorization['\"]?\s*[:=]\s*['\"]?(?:basic|bearer)\s+)[^\s'\"]+", re.IGNORECASE
        ),
        rf"\g<keep>{MASK}",
    ),
    (
        re.compile(
            r"(?P<keep>\b[\w-]*(?:password|passwd|secret(?:_access_key)?|token|passphrase)\\*['\"]?\s*[:=]\s*\\*['\"]?)[^\s'\",;&}]+",
            re.IGNORECASE,
        ),
        rf"\g<keep>{MASK}",
    ),
    (
        re.compile(r"(?P<keep>X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s'\"]+", re.IGNORECASE),
        rf"\g<keep>{MASK}",
    ),
)


class Redaction:
    """Replaces known secret values, and what looks like a secret, by ``***``."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        values = sorted({value for value in secrets if len(value) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, values))) if values else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text


class RedactionFilter(logging.Filter):
    """Redacts the message and the stack trace of every record that passes."""

    def __init__(self, redaction: Redaction) -> None:
        super().__init__()
        self._redaction = redaction

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, rewritten."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a call with the wrong arguments is no reason to lose the record
            message = f"{record.msg} {record.args}"
        record.msg, record.args = self._redaction(message), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = self._redaction("".join(traceback.format_exception(*record.exc_info)).rstrip())
            record.exc_info = None
        elif record.exc_text:
            record.exc_text = self._redaction(record.exc_text)
        return True


def secrets_of(model: BaseModel) -> list[str]:
    """Return all secret values within settings."""
    found: list[str] = []
    for _, value in model:
        found += _secrets_in(value)
    return found


def _secrets_in(value: Any) -> list[str]:
    match value:
        case SecretStr():
            return [value.get_secret_value()]
        case BaseModel():
            return secrets_of(value)
        case dict():
            return [secret for item in value.values() for secret in _secrets_in(item)]
        case _:
            return []
