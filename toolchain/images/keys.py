"""Cache keys of images: a changed key makes a built image stale."""

import hashlib
import json
from pathlib import Path
from typing import Any


def key_of(*made_from: Any) -> str:
    """A digest of values, and of the fields of objects."""
    text = json.dumps(made_from, sort_keys=True, default=lambda value: value.__dict__)
    return hashlib.sha256(text.encode()).hexdigest()


def code_of(*modules: str) -> str:
    """A digest of files of this package."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in modules)).hexdigest()
