"""The machine's state before it became a node, recorded so that it can be restored."""

import json
import os
from pathlib import Path
from typing import Any


def read_record(path: Path) -> dict[str, Any]:
    """Return the record; empty if there is none."""
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except OSError:
        return {}
    return record


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record atomically."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_suffix(".part")
    with part.open("w") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
