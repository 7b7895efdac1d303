"""Secrets that live in the state, and the platform file that a person's command line reads."""

from pathlib import Path

import pytest

from components.providers.base import ResourceError
from components.providers.platform_file import PlatformFileInputs, PlatformFileProvider
from components.providers.secret import GeneratedSecretInputs, GeneratedSecretProvider


def test_a_secret_is_long_random_and_needs_no_quoting() -> None:
    made = {GeneratedSecretProvider().apply(GeneratedSecretInputs(version="1"))["value"] for _ in range(100)}
    assert len(made) == 100
    assert all(len(value) == 32 and value.replace("-", "").replace("_", "").isalnum() for value in made)


def test_a_secret_changes_only_when_that_is_asked_for() -> None:
    provider = GeneratedSecretProvider()
    created = provider.create({"version": "1", "length": 40})
    old = created.outs
    assert old is not None
    assert len(old["value"]) == 40
    newer = provider.update("secret", old, {"version": "2", "length": 40, "rotation": ""}).outs
    assert newer is not None
    assert newer["value"] == old["value"]
    rotated = provider.update("secret", old, {"version": "1", "length": 40, "rotation": "2026-11"}).outs
    assert rotated is not None
    assert rotated["value"] != old["value"]


def test_a_refresh_leaves_a_secret_as_it_is() -> None:
    provider = GeneratedSecretProvider()
    created = provider.create({"version": "1"})
    assert created.outs is not None
    seen = provider.read("secret", created.outs)
    assert seen.id == "secret"
    assert seen.outs == created.outs
    provider.delete("secret", created.outs)


def declared(path: Path, settings: str = '{"environment": "test"}') -> PlatformFileInputs:
    return PlatformFileInputs(version="1", path=str(path), settings=settings)


def test_the_platform_file_is_private_and_follows_the_settings(tmp_path: Path) -> None:
    path, provider = tmp_path / "home" / "test" / "platform.json", PlatformFileProvider()
    provider.create(declared(path).model_dump())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    provider.update("", {}, declared(path, "{}").model_dump())
    assert path.read_text() == "{}"


def test_an_edited_an_opened_and_a_removed_platform_file_are_drift(tmp_path: Path) -> None:
    path, provider = tmp_path / "platform.json", PlatformFileProvider()
    provider.apply(declared(path))
    assert provider.observe(declared(path)) == {"settings": declared(path).settings}
    path.write_text("edited")
    assert provider.observe(declared(path)) == {"settings": "edited"}
    path.chmod(0o644)
    assert provider.observe(declared(path)) is None
    provider.remove(declared(path))
    provider.remove(declared(path))
    assert provider.observe(declared(path)) is None


def test_a_platform_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"cannot write the platform file .*MARKETLAKE_HOME"):
        PlatformFileProvider().apply(declared(tmp_path / "file" / "platform.json"))


def test_settings_are_not_shown() -> None:
    assert "geheim" not in repr(declared(Path("/x"), "geheim"))
