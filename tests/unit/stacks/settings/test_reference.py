from pathlib import Path

from pydantic import BaseModel

from stacks.settings.environment import EnvironmentSettings
from stacks.settings.reference import REFERENCE, settings_reference, write_reference
from stacks.settings.validation import section_at


def test_the_committed_reference_is_what_the_schema_says() -> None:
    assert REFERENCE.read_text() == settings_reference(), "run `make reference` and commit docs/reference"


def test_every_setting_has_a_row_with_a_description() -> None:
    page = settings_reference()
    rows = [line for line in page.splitlines() if line.startswith("| `")]

    def told(model: type[BaseModel], prefix: str) -> None:
        assert model.__doc__
        for field in model.model_fields.values():
            section = section_at(tuple(f"{prefix}{field.alias}".removeprefix("marketlake:").split(".")))
            if section is not None:
                assert f"## `{prefix}{field.alias}`" in page
                told(section, f"{prefix}{field.alias}.")
            elif field.alias != "vendor":
                row = next(
                    row
                    for row in rows
                    if row.startswith((f"| `{field.alias}`", f"| `{prefix}{field.alias}`"))
                )
                assert row.rstrip(" |").split("|")[-1].strip(), f"{prefix}{field.alias} is not described"

    told(EnvironmentSettings, "marketlake:")
    assert "## `marketlake:images.vendor.<program>`" in page


def test_types_bounds_and_defaults_are_told() -> None:
    page = settings_reference()
    assert "| `marketlake:target` | `host` or `kubernetes` | `host` |" in page
    assert "| `password` | secret | none |" in page
    assert "| `host` | text | has to be given |" in page
    assert "| `executables` | texts by name | none |" in page
    assert "| `disk` | integer, 256 to 1073741824 | `1024` |" in page
    assert "| `marketlake:keepData` | boolean | `false` |" in page
    assert "| `database` | integer, 1024 to 65535 | none |" in page
    assert "| `requestsPerSecond` | number, above 0, at most 10000 | `300.0` |" in page
    assert "| `retentionHours` | integer, at least 1 | `168` |" in page


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "reference" / "settings.md"
    assert write_reference(path)
    assert not write_reference(path)
    assert path.read_text() == settings_reference()
