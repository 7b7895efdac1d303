"""What the ledger says is compared with landing and the lake, and a lake is made anew from landing."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import obstore
import pytest
from deltalake import DeltaTable
from marketlake.archive import ledger
from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import BatchState, Progress, Source
from marketlake.archive.collection.stores import LAKE, LANDING, Stores
from marketlake.archive.upkeep import (
    LakeInUseError,
    Maintainer,
    Maintenance,
    Pruned,
    Routine,
    Verification,
    forget,
    maintain,
    prune,
    verify,
)
from marketlake.domain.archive import Frequency, Selection
from marketlake.infrastructure.storage import identity
from marketlake.infrastructure.storage.delta import data_files, open_table
from marketlake.infrastructure.storage.identity import UnconditionalStoreError, identify
from marketlake.infrastructure.storage.stores import Lake, landing_store
from marketlake.pipeline.ingest import compaction
from marketlake.pipeline.ingest.bronze import shape_of
from marketlake.pipeline.serving.query import query
from obstore.store import MemoryStore

from tests.integration.test_collection import (
    KEY_1,
    KEY_2,
    KEY_3,
    KLINES,
    ROWS,
    Platform,
    Watched,
    kline_of,
    platform,
)
from tests.provisioning import s3
from tests.waiting import eventually

__all__ = ["platform"]  # the fixture


@pytest.fixture
def collected(platform: Platform) -> Iterator[Platform]:
    """The samples are in, and a worker is there."""
    with platform.working(Watched(), carrying=True):
        assert carried(platform).complete
        yield platform


def carried(platform: Platform, source: Source = Source.VENUE, selection: Selection = KLINES) -> Progress:
    batch_id = uuid4()
    with platform.postgres.transaction() as connection:
        endpoint = platform.exchange.endpoint
        batches.request(connection, batch_id, selection, endpoint, traceparent=None, source=source)
    eventually(lambda: platform.progress(batch_id).state.ended, within_s=60)
    return platform.progress(batch_id)


def lake_of(platform: Platform) -> Lake:
    return Lake.of(platform.settings.object_store)


def stores_of(platform: Platform) -> Stores:
    return Stores(landing_store(platform.settings.object_store), lake_of(platform).bucket)


def compared(platform: Platform) -> Verification:
    return verify(platform.postgres, stores_of(platform), lake_of(platform))


def emptied(platform: Platform, *, landing: bool = False) -> None:
    """Let a bucket lose everything."""
    stores = stores_of(platform)
    bucket = stores.landing if landing else stores.lake
    for page in obstore.list(bucket):
        obstore.delete(bucket, [entry["path"] for entry in page])


def silver_rows(platform: Platform) -> int:
    (row,) = query(platform.settings, "select count(*) as n from silver.candles").to_pylist()
    return int(row["n"])


def kinds(found: Verification) -> dict[str, int]:
    return {str(kind): count for kind, count in found.counts.items()}


def test_nothing_differs_after_a_collection(collected: Platform) -> None:
    found = compared(collected)
    assert found.whole
    assert (found.files, found.data_files, found.rows) == (3, 1, ROWS)


def test_what_somebody_took_away_or_changed_is_told(collected: Platform) -> None:
    lake, landing = lake_of(collected), stores_of(collected).landing
    (data_file,) = [
        entry["path"]
        for page in obstore.list(lake.bucket, "bronze/binance_klines/")
        for entry in page
        if entry["path"].endswith(".parquet")
    ]
    obstore.delete(lake.bucket, data_file)
    obstore.delete(landing, f"binance/{KEY_1}")
    obstore.put(landing, f"binance/{KEY_2}", b"other")
    with collected.postgres.transaction() as connection:
        connection.execute("update ledger set rows = rows + 1 where key = %s", [KEY_3])
    found = compared(collected)
    assert kinds(found) == {
        "not-in-landing": 1,
        "other-size-in-landing": 1,
        "not-in-lake": 1,
        "other-rows": 1,
    }
    assert {difference.name for difference in found.differences} == {
        f"binance/{KEY_1}",
        f"binance/{KEY_2}",
        data_file,
    }


def test_a_log_that_says_something_else_is_told(collected: Platform) -> None:
    with collected.postgres.transaction() as connection:
        connection.execute("update data_file set path = 'spot/elsewhere.parquet'")
    found = compared(collected)
    assert kinds(found) == {"not-in-log": 1, "not-in-lake": 1, "unknown-in-log": 1}


def test_a_lake_that_is_gone_is_told_and_made_anew_without_the_venue(collected: Platform) -> None:
    emptied(collected)
    ended = carried(collected)
    assert (ended.state, ended.error_code) == (BatchState.FAILED, "store-changed")
    assert "lake rebuild" in (ended.error or "")
    assert kinds(compared(collected)) == {"another-store": 1}
    collected.exchange.objects.clear()  # nothing is asked of the venue
    assert forget(collected.postgres, stores_of(collected)) == 3
    assert kinds(compared(collected)) == {"not-in-bronze": 3}
    ended = carried(collected, Source.LANDING)
    assert ended.complete
    assert (ended.found, ended.rows, ended.refined_rows) == (3, ROWS, ROWS)
    assert collected.rows() == ROWS
    assert silver_rows(collected) == ROWS
    assert compared(collected).whole


def test_a_selection_is_taken_over_again_though_its_data_file_is_lost(collected: Platform) -> None:
    collected.exchange.publish_csv(KEY_1, kline_of(1_577_836_800_000))
    assert carried(collected).complete  # now there are two data files
    lake = lake_of(collected)
    with collected.postgres.transaction() as connection:
        entry = ledger.current(connection, "binance", [KEY_1])[KEY_1]
        row = connection.execute("select path from data_file where id = %s", [entry.data_file_id]).fetchone()
    assert row is not None
    obstore.delete(lake.bucket, f"bronze/binance_klines/{row['path']}")
    assert kinds(compared(collected)) == {"not-in-lake": 1}
    first = Selection(
        venue="binance",
        market="spot",
        data_type="klines",
        interval="1m",
        start=entry.file_start,
        end=entry.file_end,
    )
    ended = carried(collected, Source.LANDING, first)
    assert (ended.complete, ended.found, ended.rows) == (True, 1, 1)
    assert compared(collected).whole
    assert collected.rows() == 1 + 1440 + 24


def test_taking_over_again_doubles_nothing(collected: Platform) -> None:
    for _ in range(2):
        assert carried(collected, Source.LANDING).complete
    assert collected.rows() == ROWS
    assert silver_rows(collected) == ROWS
    assert compared(collected).whole


def test_what_landing_lacks_fails_by_itself_and_comes_from_the_venue_with_the_next_collection(
    collected: Platform,
) -> None:
    landing = stores_of(collected).landing
    obstore.delete(landing, f"binance/{KEY_1}")
    obstore.put(landing, f"binance/{KEY_2}", b"other bytes")
    forget(collected.postgres, stores_of(collected))
    with collected.postgres.transaction() as connection:
        connection.execute("update ledger set landing_version_id = null")  # as if the bucket had no versions
    ended = carried(collected, Source.LANDING)
    assert (ended.found, ended.failed, ended.rows) == (3, 2, 24)
    ended = carried(collected)
    assert (ended.complete, ended.skipped, ended.verified) == (True, 1, 2)
    assert collected.rows() == ROWS
    assert compared(collected).whole


def test_a_landing_that_is_gone_is_told_until_it_is_accepted(collected: Platform) -> None:
    emptied(collected, landing=True)
    ended = carried(collected)
    assert (ended.state, ended.error_code) == (BatchState.FAILED, "store-changed")
    assert "accept-landing" in (ended.error or "")
    stores_of(collected).accept(collected.postgres, LANDING)
    assert carried(collected).complete
    assert kinds(compared(collected)) == {"not-in-landing": 3}


def test_a_lake_in_use_is_not_given_up(platform: Platform) -> None:
    platform.claim()
    with pytest.raises(LakeInUseError, match="1 collections have not ended"):
        forget(platform.postgres, stores_of(platform))


def rows_of(platform: Platform, table: str) -> int:
    with platform.postgres.transaction() as connection:
        row = connection.execute(f"select count(*) as n from {table}").fetchone()  # noqa: S608 - ours
    return int(row["n"]) if row else 0


def test_what_ended_long_ago_is_forgotten_and_nothing_else(collected: Platform) -> None:
    collected.exchange.publish_csv(KEY_1, kline_of(1_577_836_800_000))
    assert carried(collected).complete  # a data file was replaced by two
    assert prune(collected.postgres) == Pruned(0, 0, 0)
    pruned = prune(collected.postgres, batches_kept=timedelta(), units_kept=timedelta())
    assert pruned == Pruned(batches=2, units=2, data_files=1)
    tables = ("batch", "task", "part_failure", "staged_unit", "commit_intent", "data_file", "ledger")
    assert [rows_of(collected, table) for table in tables] == [0, 0, 0, 0, 1, 2, 4]
    assert compared(collected).whole
    collected.exchange.publish_csv(KEY_2, kline_of(1_577_923_200_000))
    assert carried(collected).complete, "the sequence of commits goes on"
    assert collected.rows() == 1 + 1 + 24


def test_what_is_open_is_not_forgotten(platform: Platform) -> None:
    run = platform.claim()
    prune(platform.postgres, batches_kept=timedelta(), units_kept=timedelta())
    assert platform.progress(run.id).state is BatchState.PLANNING


def test_a_routine_repeats_and_survives_what_fails() -> None:
    times: list[int] = []

    def act(_: object) -> str:
        times.append(len(times))
        if len(times) == 2:
            raise LakeInUseError("not now")
        return "done"

    stop = threading.Event()
    thread = threading.Thread(target=Routine("test", act, first_after_s=0, every_s=0.01).run, args=(stop,))
    thread.start()
    eventually(lambda: len(times) > 3)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def maintained(platform: Platform, **options: Any) -> Maintenance:
    store = platform.settings.object_store
    return Maintainer(platform.postgres, lake_of(platform), store).maintain(
        wait=threading.Event().wait, **options
    )


def data_files_of(platform: Platform) -> int:
    return len(data_files(open_table(lake_of(platform), shape_of("bronze/binance_klines"))))


def test_small_data_files_are_merged_and_every_row_stays(
    collected: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, day in ((KEY_1, 1), (KEY_2, 2)):  # each re-issue makes a data file of its own
        collected.exchange.publish_csv(key, kline_of(1_577_836_800_000 + (day - 1) * 86_400_000))
        assert carried(collected).complete
    before = data_files_of(collected)
    monkeypatch.setattr(compaction, "DUE_AFTERWARDS", 2)
    told = maintained(collected, dry_run=True)
    (table,) = [each for each in told.tables if each.table == "bronze/binance_klines"]
    assert table.merged == 2
    assert data_files_of(collected) == before
    maintained(collected)
    eventually(lambda: data_files_of(collected) == before - 1)
    assert collected.rows() == 1 + 1 + 24
    eventually(lambda: compared(collected).whole)
    lake = lake_of(collected)
    log = DeltaTable(lake.uri("bronze/binance_klines"), storage_options=lake.options)
    assert log.version() > 0
    collected.exchange.publish_csv(KEY_1, kline_of(1_577_836_860_000))
    assert carried(collected).complete, "a re-issue finds its former rows where they are now"
    assert collected.rows() == 1 + 1 + 24
    assert compared(collected).whole


def test_a_compaction_that_was_overtaken_is_refused(
    collected: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected.exchange.publish_csv(KEY_1, kline_of(1_577_836_800_000))
    assert carried(collected).complete
    collected.exchange.publish_csv(KEY_2, kline_of(1_577_923_200_000))
    assert carried(collected).complete
    monkeypatch.setattr(compaction, "DUE_AFTERWARDS", 2)
    merge = compaction.merge

    def overtaken(*where: Any) -> Any:
        merged = merge(*where)
        collected.exchange.publish_csv(KEY_2, kline_of(1_577_923_260_000))
        assert carried(collected).complete
        return merged

    monkeypatch.setattr("marketlake.archive.upkeep.maintain.merge", overtaken)
    maintained(collected)
    eventually(lambda: rows_of(collected, "staged_unit where state = 'refused'") == 1)
    assert collected.rows() == 1 + 1 + 24
    assert compared(collected).whole


def test_what_nobody_names_is_deleted_after_a_while(
    collected: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = lake_of(collected)
    obstore.put(lake.bucket, "bronze/binance_klines/spot/orphan.parquet", b"PAR1")
    assert sum(table.deleted for table in maintained(collected).tables) == 0
    monkeypatch.setattr(maintain, "RETENTION", timedelta())
    assert sum(table.deleted for table in maintained(collected).tables) >= 1
    with pytest.raises(FileNotFoundError):
        obstore.head(lake.bucket, "bronze/binance_klines/spot/orphan.parquet")
    assert compared(collected).whole
    assert collected.rows() == ROWS


def test_uploads_that_were_left_are_given_up(collected: Platform) -> None:
    store = collected.settings.object_store
    client = s3(store)
    client.create_multipart_upload(Bucket=store.landing_bucket, Key="left")
    assert maintained(collected).uploads == 0
    later = datetime.now(UTC) + timedelta(days=2)
    assert maintained(collected, now=later, dry_run=True).uploads == 1
    assert maintained(collected, now=later).uploads == 1
    assert maintained(collected, now=later).uploads == 0


def test_a_checkpoint_is_made_when_it_is_due(collected: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintain, "CHECKPOINT_EVERY", 1)
    assert any(table.checkpoint for table in maintained(collected, dry_run=True).tables)
    maintained(collected)
    assert not any(table.checkpoint for table in maintained(collected, dry_run=True).tables)
    assert compared(collected).whole


def test_stores_are_those_that_were_seen_first(platform: Platform) -> None:
    stores = stores_of(platform)
    assert stores.changed(platform.postgres) == ()
    stores.require(platform.postgres)
    stores.require(platform.postgres)
    emptied(platform)
    emptied(platform, landing=True)
    assert stores.changed(platform.postgres) == (LANDING, LAKE)


def test_a_bucket_keeps_its_identity() -> None:
    bucket = MemoryStore()
    first = identify(bucket)
    assert identify(bucket) == first
    obstore.put(bucket, identity.KEY, b"no number")
    assert identity.identity_of(bucket) is None


def test_a_store_that_overwrites_what_it_should_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    put = obstore.put

    def heedless(bucket: MemoryStore, key: str, body: bytes, **_: object) -> object:
        return put(bucket, key, body)

    monkeypatch.setattr(obstore, "put", heedless)
    with pytest.raises(UnconditionalStoreError, match="If-None-Match"):
        identify(MemoryStore())


def test_the_ledger_keeps_how_much_time_a_file_covers(collected: Platform) -> None:
    with collected.postgres.transaction() as connection:
        entry = ledger.current(connection, "binance", [KEY_1])[KEY_1]
    assert entry.frequency is Frequency.DAILY
    assert entry.file.key == KEY_1
    assert isinstance(entry.batch_id, UUID)
