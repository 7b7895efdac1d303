"""Supplies the JSON files of Go modules that a recipe's own main package embeds, by Go's ``-overlay``.

Megabytes of a vendor's data need not be committed for that: a recipe names them in its ``embedded.toml``, and they
come from modules that the recipe's go.sum proves.
"""

import json
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.errors import BomError, SourceUnavailableError

EMBEDDED = "embedded.toml"
"""Name of the file in a recipe's folder."""
Execute = Callable[[Sequence[str]], str]
"""Runs a command in the recipe's folder and returns its standard output."""


@dataclass(frozen=True)
class EmbeddedJson:
    """A JSON file of a Go module, under the name by which the recipe's main package embeds it."""

    name: str
    module: str
    path: str
    """Of the file in the module."""
    set: Mapping[str, str] = field(default_factory=dict)
    """Members of its outermost object that are set."""


def embedded_files(recipe: Path) -> list[EmbeddedJson]:
    """Return what a recipe embeds; nothing, if it has no ``embedded.toml``.

    Raises:
        BomError: an entry has an unknown key, or one is missing.
    """
    file = recipe / EMBEDDED
    if not file.is_file():
        return []
    try:
        return [EmbeddedJson(name=name, **entry) for name, entry in tomllib.loads(file.read_text()).items()]
    except TypeError as error:
        raise BomError(f"{recipe.name}/{EMBEDDED}: {error}") from error


def overlay_flags(recipe: Path, folder: Path, execute: Execute) -> list[str]:
    """Write the files that a recipe embeds, and return the flags that show them to Go in the recipe's folder.

    Args:
        recipe: its folder.
        folder: where the files are written.
        execute: downloads modules.

    Raises:
        SourceUnavailableError: a module cannot be downloaded, or does not hold the file.
    """
    files = embedded_files(recipe)
    if not files:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    modules = {
        name: json.loads(execute(["go", "mod", "download", "-json", name]))
        for name in {file.module for file in files}
    }
    for file in files:
        _write(folder / file.name, _content(file, Path(modules[file.module]["Dir"])))
    replaced = {str(recipe / file.name): str(folder / file.name) for file in files}
    overlay = folder / "overlay.json"
    _write(overlay, json.dumps({"Replace": replaced}))
    return ["-overlay", str(overlay)]


def _content(file: EmbeddedJson, module: Path) -> str:
    """The file's text, without the blanks that make up half of it."""
    try:
        values = json.loads((module / file.path).read_text())
    except (OSError, ValueError) as error:
        raise SourceUnavailableError(f"{file.module} holds no JSON file {file.path}: {error}") from error
    return json.dumps({**values, **file.set}, separators=(",", ":"), ensure_ascii=False)


def _write(path: Path, text: str) -> None:
    """Replace a file at once: work ahead and a build may both write it, and Go may be reading it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
