"""Parse checksum files: the sha256 that the venue publishes of an archive file."""

import re

from marketlake.sync.errors import SidecarInvalidError

_LINE = re.compile(r"(?P<sha256>[0-9a-fA-F]{64}) [ *](?P<name>\S(?:.*\S)?)\s*")
LONGEST = 4096
"""Bytes that are read of a checksum file, which has about a hundred."""


def parse_sidecar(body: bytes, key: str) -> str:
    """Return the sha256, in lower case, that a checksum file names.

    Args:
        body: ``<sha256>  <name>``, with or without a final newline (as `sha256sum` writes it).
        key: key of the archive file; its last part has to be the name.

    Raises:
        SidecarInvalidError: it says something else, or speaks of another file.
    """
    name = key.rpartition("/")[2]
    text = body.decode("utf-8", "replace")
    match = _LINE.fullmatch(text)
    if match is None:
        raise SidecarInvalidError(
            f"the checksum file of {key} should read '<sha256>  {name}', but reads {text[:120]!r}. "
            "Nothing was copied; collect again later, and report it to the venue if it stays so."
        )
    if match["name"] != name:
        raise SidecarInvalidError(
            f"the checksum file of {key} speaks of another file, {match['name']!r} instead of "
            f"{name!r}. Nothing was copied; collect again later, and report it to the venue if it stays so."
        )
    return match["sha256"].lower()
