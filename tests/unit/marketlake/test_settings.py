import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketlake.settings import (
    Database,
    HealthKind,
    ServiceInfo,
    Settings,
    SettingsError,
    SslMode,
    platform_file,
    platform_home,
)
from pydantic import SecretStr

from tests.unit.marketlake.samples import settings

SERVICE = ServiceInfo(name="database", version="18", health=HealthKind.TCP, target="h:1")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("MARKETLAKE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MARKETLAKE_HOME", str(tmp_path))


def write_platform_file(given: Settings) -> Path:
    path = platform_file(given.environment)
    path.parent.mkdir(parents=True)
    path.write_text(given.to_json())
    return path


def test_a_platform_file_gives_back_what_was_written() -> None:
    written = settings(services=[SERVICE])
    write_platform_file(written)
    assert Settings.load("test") == written


def test_environment_variables_give_back_what_was_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = settings(services=[SERVICE])
    for name, value in rendered.to_env().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == rendered.model_copy(update={"services": ()})


def test_one_environment_variable_changes_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    write_platform_file(settings())
    monkeypatch.setenv("MARKETLAKE_COLLECTION__CONCURRENCY", "9")
    assert Settings.load("test").collection.concurrency == 9


def test_another_environment_is_read_from_its_file_even_in_a_deployed_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_platform_file(settings())
    for name, value in settings(environment="deployed").to_env().items():
        monkeypatch.setenv(name, value)
    assert Settings.load().environment == "deployed"
    # the variables still win over the file, value by value
    assert Settings.load("test").database == settings().database


def test_an_environment_that_is_not_up_is_told_with_the_command_that_helps(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"'nowhere' is not up on this machine\. Run `make up ENV=nowhere`"
    ):
        Settings.load("nowhere")


def test_an_unreadable_platform_file_is_told() -> None:
    write_platform_file(settings()).write_text("{half")
    with pytest.raises(SettingsError, match="cannot read the platform file"):
        Settings.load("test")


def test_an_unknown_key_is_refused_and_no_secret_is_in_the_message() -> None:
    values = json.loads(settings().to_json())
    values["database"]["pasword"] = "oops-a-secret"
    values["database"]["port"] = "not-a-port-but-a-secret"
    write_platform_file(settings()).write_text(json.dumps(values))
    with pytest.raises(SettingsError, match=r"database\.pasword") as caught:
        Settings.load("test")
    assert "secret" not in str(caught.value).replace("secret_access_key", "")


def test_a_platform_file_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MARKETLAKE_PLATFORM_FILE", str(tmp_path / "other.json"))
    assert platform_file("test") == tmp_path / "other.json"


def test_the_home_follows_the_users_conventions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert platform_home() == tmp_path
    monkeypatch.delenv("MARKETLAKE_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert platform_home() == Path("/var/lib/marketlake")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert platform_home() == Path("/data/marketlake")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert platform_home() == Path("/home/somebody/.local/share/marketlake")


@given(password=st.text(st.characters(codec="ascii", exclude_characters="\x00"), min_size=1))
def test_a_dsn_carries_any_password(password: str) -> None:
    from psycopg.conninfo import conninfo_to_dict

    database = Database(host="h", port=5, user="a user", password=password)
    parts = conninfo_to_dict(database.dsn)
    assert (parts["password"], parts["user"], parts["port"]) == (password, "a user", "5")


@pytest.mark.parametrize("sslmode", list(SslMode))
def test_a_root_certificate_is_a_file_as_long_as_a_connection_is_made(sslmode: SslMode) -> None:
    database = Database(
        host="h", port=5, user="u", password=SecretStr("p"), sslmode=sslmode, root_certificate="PEM"
    )
    with database.tls() as tls:
        assert tls.pop("sslmode") == sslmode
        paths = [Path(path) for path in tls.values()]
        assert [path.read_text() for path in paths] == (["PEM"] if sslmode.verifies else [])
    assert not any(path.exists() for path in paths)


def test_without_one_the_authorities_are_those_that_the_machine_trusts() -> None:
    database = Database(host="h", port=5, user="u", password=SecretStr("p"), sslmode=SslMode.VERIFY_FULL)
    with database.tls() as tls:
        assert "BEGIN CERTIFICATE" in Path(tls["sslrootcert"]).read_text()
