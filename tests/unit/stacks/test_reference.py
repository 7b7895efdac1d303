from pathlib import Path

from stacks.reference import REFERENCE, settings_reference, write_reference
from stacks.settings import EnvironmentSettings


def test_the_committed_reference_is_what_the_schema_says() -> None:
    assert REFERENCE.read_text() == settings_reference(), "run `make reference` and commit docs/reference"


def test_every_setting_has_a_row_with_a_description() -> None:
    page = settings_reference()
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| `")}
    for field in EnvironmentSettings.model_fields.values():
        section = field.annotation if isinstance(field.annotation, type) else None
        if hasattr(section, "model_fields"):
            assert f"## `marketlake:{field.alias}`" in page
            assert section.__doc__
            assert all(f"`{inner.alias}`" in rows for inner in section.model_fields.values())
        else:
            assert f"`marketlake:{field.alias}`" in rows
    assert all(row.rstrip(" |").split("|")[-1].strip() for row in rows.values())


def test_types_bounds_and_defaults_are_told() -> None:
    page = settings_reference()
    assert "| `marketlake:target` | `host` | `host` |" in page
    assert "| `marketlake:keepData` | boolean | `false` |" in page
    assert "| `database` | integer, 1024 to 65535 | none |" in page
    assert "| `requestsPerSecond` | number, above 0, at most 10000 | `20.0` |" in page
    assert "| `retentionHours` | integer, at least 1 | `168` |" in page


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "reference" / "settings.md"
    assert write_reference(path)
    assert not write_reference(path)
    assert path.read_text() == settings_reference()
