"""The schema and the ledger on a real PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from uuid import UUID, uuid4

import psycopg
import pytest
from marketlake.archive import ledger
from marketlake.archive.ledger import LedgerEntry, Receipt
from marketlake.domain.archive import ArchiveFile, Selection, Series
from marketlake.infrastructure.postgres import DatabaseUnavailableError, Postgres, SchemaError, migrate
from marketlake.infrastructure.postgres.locks import LockHeldError, hold
from marketlake.infrastructure.postgres.migrations import Migration, packaged
from marketlake.settings import Database
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from tests import servers
from tests.unit.marketlake.archive.samples import archive_file
from tests.waiting import eventually

BATCH = UUID(int=5)


@pytest.fixture
def settings_of_database(postgres_server: servers.Postgres) -> Database:
    return postgres_server.create_database(f"ledger{uuid4().hex[:8]}")


@pytest.fixture
def postgres(settings_of_database: Database) -> Iterator[Postgres]:
    with Postgres(settings_of_database, application="test") as postgres:
        yield postgres


def receipt(
    file: ArchiveFile, sha256: str = "a" * 64, *, version: int = 1, first_day: date | None = date(2020, 1, 1)
) -> Receipt:
    return Receipt(
        key=file.key,
        version=version,
        former_version=version - 1 or None,
        sha256=sha256,
        header=False,
        rows=10,
        quarantined=1,
        first_day=first_day,
        last_day=first_day,
        landing_key="binance/x",
        landing_version_id="v",
        data_file_id=None,
    )


def record(postgres: Postgres, file: ArchiveFile, given: Receipt | None = None) -> LedgerEntry:
    with postgres.transaction() as connection:
        (entry,) = ledger.record(connection, [file], [given or receipt(file)], batch_id=BATCH)
        return entry


def test_processes_that_start_together_migrate_once(settings_of_database: Database) -> None:
    def one() -> int:
        with Postgres(settings_of_database, application="test") as postgres:
            return migrate(postgres)

    with ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(lambda _: one(), range(6)))
    assert sorted(applied) == [0, 0, 0, 0, 0, len(packaged())]


def test_a_migration_that_fails_leaves_nothing_behind(postgres: Postgres) -> None:
    broken = Migration(2, "0002_broken.sql", "create table half (a int); select nonsense")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        migrate(postgres, (*packaged(), broken))
    with postgres.transaction() as connection:
        row = connection.execute(
            "select to_regclass('half') as half, to_regclass('ledger') as ledger"
        ).fetchone()
    assert row == {"half": None, "ledger": None}


def test_a_database_of_a_newer_release_is_refused(postgres: Postgres) -> None:
    migrate(postgres, (*packaged(), Migration(99, "0099_future.sql", "create table future (a int)")))
    with pytest.raises(SchemaError, match="version 99, this program knows up to"):
        migrate(postgres)


def test_an_edited_migration_is_refused(postgres: Postgres) -> None:
    migrate(postgres)
    first = packaged()[0]
    with pytest.raises(SchemaError, match="restore it"):
        migrate(postgres, (replace(first, sql=first.sql + "-- edited"), *packaged()[1:]))


def test_a_file_that_came_in_is_the_current_entry(postgres: Postgres) -> None:
    migrate(postgres)
    file = archive_file(1)
    entry = record(postgres, file)
    assert (entry.version, entry.rows, entry.is_of(file)) == (1, 10, True)
    with postgres.transaction() as connection:
        assert ledger.current(connection, "binance", [file.key, "other"]) == {file.key: entry}
        assert ledger.collected_keys(connection, "binance") == {file.key}
        assert ledger.collected_keys(connection, "binance", market="um") == set()


def test_a_reissued_file_is_a_new_version_and_a_recorded_conflict(postgres: Postgres) -> None:
    migrate(postgres)
    file = archive_file(1)
    reissued = replace(file, etag="other", size=5)
    record(postgres, file)
    second = record(postgres, reissued, receipt(file, "b" * 64, version=2, first_day=date(2020, 1, 2)))
    assert second.version == 2
    with postgres.transaction() as connection:
        (conflict,) = ledger.conflicts(connection, "binance")
        assert (conflict.former_version, conflict.version) == (1, 2)
        assert (conflict.former_sha256, conflict.sha256) == ("a" * 64, "b" * 64)
        assert ledger.conflicts(connection, "binance", keys=["other"]) == []
        assert ledger.current(connection, "binance", [file.key])[file.key] == second
        rows = connection.execute("select sha256 from ledger order by version").fetchall()
        assert [row["sha256"] for row in rows] == ["a" * 64, "b" * 64]
        assert ledger.former_days(connection, [second]) == [(date(2020, 1, 1), date(2020, 1, 1))]


def test_the_same_bytes_again_are_no_new_version(postgres: Postgres) -> None:
    migrate(postgres)
    file = archive_file(1)
    first = record(postgres, file)
    assert record(postgres, file).version == 1
    touched = replace(file, etag="touched")
    with postgres.transaction() as connection:
        ledger.touch(connection, touched, first)
        assert ledger.current(connection, "binance", [file.key])[file.key].is_of(touched)
        assert ledger.conflicts(connection, "binance") == []


def series(symbol: str, interval: str | None = "1m") -> Series:
    return Series(venue="binance", market="spot", data_type="klines", symbol=symbol, interval=interval)


def test_what_silver_has_not_taken_in_is_found_until_it_has(postgres: Postgres) -> None:
    migrate(postgres)
    entries = [record(postgres, archive_file(day)) for day in (1, 2)]
    other = record(postgres, archive_file(1, symbol="ETHUSDT"))
    spot = Selection(venue="binance", market="spot", data_type="klines", interval="1m")
    both = [series("BTCUSDT"), series("ETHUSDT")]
    with postgres.transaction() as connection:
        found = ledger.unrefined_series(connection, spot)
        assert list(found.items()) == [(both[0], 20), (both[1], 10)]
        assert list(ledger.unrefined_series(connection, replace(spot, symbols=("ETHUSDT",)))) == both[1:]
        assert not ledger.unrefined_series(connection, replace(spot, market="um"))
        assert ledger.unrefined_of(connection, both) == [*entries, other]
        assert ledger.unrefined_of(connection, both[1:]) == [other]
        assert ledger.unrefined_of(connection, [series("BTCUSDT", "5m")]) == []
        assert ledger.mark_refined(connection, entries) == 2
        assert list(ledger.unrefined_series(connection, spot)) == both[1:]
        assert ledger.unrefined_of(connection, both) == [other]


def test_an_entry_that_was_renewed_during_the_refinement_stays_to_be_refined(postgres: Postgres) -> None:
    migrate(postgres)
    file = archive_file(1)
    old = record(postgres, file)
    renewed = record(postgres, file)
    with postgres.transaction() as connection:
        assert ledger.mark_refined(connection, [old]) == 0
        assert ledger.unrefined_of(connection, [series(file.symbol)]) == [renewed]


def test_many_files_are_recorded_at_once(postgres: Postgres) -> None:
    migrate(postgres)
    files = [archive_file(day) for day in range(1, 29)]
    with postgres.transaction() as connection:
        entries = ledger.record(connection, files, [receipt(file) for file in files], batch_id=BATCH)
        assert ledger.current_versions(connection, "binance", [file.key for file in files]) == {
            file.key: 1 for file in files
        }
    assert {entry.key for entry in entries} == {file.key for file in files}
    assert all(entry.in_bronze is False for entry in entries), "their rows have no data file yet"


def test_a_file_of_a_former_release_is_known_and_not_in_bronze(settings_of_database: Database) -> None:
    former = tuple(step for step in packaged() if step.version < 3)
    with Postgres(settings_of_database, application="test") as postgres:
        migrate(postgres, former)
        with postgres.transaction() as connection:
            for version in (1, 2):
                connection.execute(
                    "insert into ledger (venue, key, version, market, data_type, symbol, file_start, file_end, sha256,"
                    " etag, size, last_modified, header, rows, quarantined, landing_key, bronze_version, batch_id)"
                    " values ('binance', 'k', %s, 'spot', 'klines', 'S', '2020-01-01', '2020-01-01', 'a', 'e', 1,"
                    " now(), false, 10, 0, 'l', 7, %s)",
                    [version, BATCH],
                )
            connection.execute(
                "insert into batch (id, selection, state) values (%s, '{}', 'collecting')", [BATCH]
            )
        assert migrate(postgres) == len(packaged()) - len(former)
        with postgres.transaction() as connection:
            entry = ledger.current(connection, "binance", ["k"])["k"]
            row = connection.execute("select state, error from batch").fetchone()
    assert (entry.version, entry.in_bronze) == (2, False)
    assert row == {"state": "failed", "error": "the platform was upgraded while it ran: collect again"}


def test_text_is_stored_whatever_characters_it_has(postgres: Postgres) -> None:
    told = "a\0b\ud800c\U0001f600"
    kept = "a\ufffdb\ufffdc\U0001f600"
    with postgres.transaction() as connection:
        row = connection.execute(
            "select %s as text, %s::text[] as texts, %s as json",
            [told, [told], Jsonb({told: [told, {"number": 1, "text": "\\\\u0000"}]})],
        ).fetchone()
    assert row == {
        "text": kept,
        "texts": [kept],
        "json": {kept: [kept, {"number": 1, "text": "\\\\u0000"}]},
    }


def test_a_lock_ends_with_its_session(postgres: Postgres) -> None:
    def lose_the_session() -> None:
        with hold(postgres, "x", wait=lambda _: True) as session:
            with postgres.transaction() as connection:
                connection.execute("select pg_terminate_backend(%s)", [session.info.backend_pid])
            session.execute("select 1")

    with pytest.raises(DatabaseUnavailableError):
        lose_the_session()
    eventually(lambda: _free(postgres))


def _free(postgres: Postgres) -> bool:
    try:
        with hold(postgres, "x", wait=lambda _: True):
            return True
    except LockHeldError:
        return False


def test_a_database_that_is_down_is_told_without_its_password(settings_of_database: Database) -> None:
    nowhere = settings_of_database.model_copy(update={"port": 1})
    with (
        Postgres(nowhere, application="test") as postgres,
        pytest.raises(DatabaseUnavailableError, match=r"127\.0\.0\.1:1 .*marketlake status") as caught,
        postgres.transaction(),
    ):
        pass
    assert nowhere.password.get_secret_value() not in str(caught.value)


def test_a_wrong_password_is_told_without_it(settings_of_database: Database) -> None:
    stranger = settings_of_database.model_copy(update={"password": SecretStr("not-the-password")})
    with (
        Postgres(stranger, application="test") as postgres,
        pytest.raises(DatabaseUnavailableError, match="is not available") as caught,
        postgres.session(),
    ):
        pass
    assert "not-the-password" not in str(caught.value)


def test_work_goes_on_after_the_database_was_killed() -> None:
    with (
        servers.server_folder() as folder,
        servers.postgres(folder) as server,
        Postgres(server.create_database("again"), application="test") as postgres,
    ):
        migrate(postgres)
        entry = record(postgres, archive_file(1))
        server.server.kill()
        with pytest.raises(DatabaseUnavailableError), postgres.transaction():
            pass
        server.server.start()
        eventually(lambda: _answers(postgres))
        with postgres.transaction() as connection:
            assert ledger.current(connection, "binance", [entry.key]) == {entry.key: entry}


def _answers(postgres: Postgres) -> bool:
    try:
        with postgres.transaction():
            return True
    except DatabaseUnavailableError:
        return False
