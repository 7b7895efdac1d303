"""A recipe's main package embeds files of modules, which are supplied to its folder while it is built."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from toolchain.bom import RECIPES, load_bom
from toolchain.errors import BomError, SourceUnavailableError
from toolchain.sources.embedded import embedded_files, overlay_flags

EMBEDDED = """
["schema.json"]
module = "example.test/provider"
path = "cmd/schema.json"
set = { version = "4.5.6" }

["mapping.json"]
module = "example.test/provider"
path = "mapping.json"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "embedded.toml").write_text(EMBEDDED)
    return folder


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "module"
    (folder / "cmd").mkdir(parents=True)
    (folder / "cmd/schema.json").write_text('{\n    "name": "größer",\n    "version": "0"\n}\n')
    (folder / "mapping.json").write_text("{ }")
    return folder


class Go:
    """Stands in for the Go command: remembers what it was asked, and gives a module's folder."""

    def __init__(self, module: Path) -> None:
        self._module = module
        self.asked: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> str:
        self.asked.append(list(command))
        return json.dumps({"Path": command[-1], "Dir": str(self._module)})


def test_they_come_from_their_module_compact_and_with_the_values_that_are_set(
    recipe: Path, module: Path, tmp_path: Path
) -> None:
    overlay_flags(recipe, tmp_path / "out", Go(module))
    assert (tmp_path / "out/schema.json").read_text() == '{"name":"größer","version":"4.5.6"}'
    assert (tmp_path / "out/mapping.json").read_text() == "{}"


def test_go_sees_them_in_the_recipes_folder_where_they_are_not(
    recipe: Path, module: Path, tmp_path: Path
) -> None:
    flag, overlay = overlay_flags(recipe, tmp_path / "out", Go(module))
    assert flag == "-overlay"
    assert json.loads(Path(overlay).read_text())["Replace"] == {
        str(recipe / name): str(tmp_path / "out" / name) for name in ("schema.json", "mapping.json")
    }
    assert [path.name for path in recipe.iterdir()] == ["embedded.toml"]


def test_a_module_is_downloaded_once_and_against_the_recipes_sums(
    recipe: Path, module: Path, tmp_path: Path
) -> None:
    go = Go(module)
    overlay_flags(recipe, tmp_path / "out", go)
    assert go.asked == [["go", "mod", "download", "-json", "example.test/provider"]]


def test_nothing_half_written_is_left(recipe: Path, module: Path, tmp_path: Path) -> None:
    for _ in range(2):
        overlay_flags(recipe, tmp_path / "out", Go(module))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"schema.json", "mapping.json", "overlay.json"}


def test_a_module_without_the_file_is_named(recipe: Path, module: Path, tmp_path: Path) -> None:
    (module / "cmd/schema.json").unlink()
    with pytest.raises(SourceUnavailableError, match=r"example\.test/provider holds no JSON file cmd/schema"):
        overlay_flags(recipe, tmp_path / "out", Go(module))


def test_a_recipe_that_embeds_nothing_asks_nothing(tmp_path: Path) -> None:
    go = Go(tmp_path)
    assert overlay_flags(tmp_path, tmp_path / "out", go) == []
    assert go.asked == []


def test_an_unknown_key_is_an_error(recipe: Path) -> None:
    (recipe / "embedded.toml").write_text('["a.json"]\nmodule = "m"\npath = "p"\ncolour = "red"\n')
    with pytest.raises(BomError, match=r"recipe/embedded\.toml: .*'colour'"):
        embedded_files(recipe)


def test_the_kubernetes_providers_schema_has_the_providers_version() -> None:
    tool = load_bom().tool("pulumi-resource-kubernetes")
    schema, mapping = embedded_files(RECIPES / "pulumi-resource-kubernetes")
    assert (schema.name, schema.set["version"]) == ("schema.json", tool.version)
    assert mapping.name == "terraform-mapping.json"
