"""The whole way of the data, through the command line, on real servers with real sample files."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from marketlake.settings import Settings

from tests import servers
from tests.deployed import Deployed, deployed
from tests.provisioning import s3
from tests.waiting import eventually

SAMPLES = Path(__file__).parents[2] / "samples"
KLINES = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01.zip"


@pytest.fixture(scope="module")
def platform(
    settings: Settings, postgres_server: servers.Postgres, servers_folder: Path
) -> Iterator[Deployed]:
    own = settings.model_copy(update={"database": postgres_server.create_database("cli")})
    with deployed(own, servers_folder, "cli") as platform:
        yield platform


@pytest.fixture(scope="module")
def published(platform: Deployed) -> dict[str, Any]:
    told: dict[str, Any] = platform.json("venue", "publish", str(SAMPLES))
    return told


@pytest.fixture(scope="module")
def collected(platform: Deployed, published: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = platform.json("collect", "--venue", "binance", "--all")
    return told


def test_publishing_puts_every_archive_file_there_once(platform: Deployed, published: dict[str, Any]) -> None:
    assert (published["published"], published["unchanged"], published["ignored"]) == (10, 0, 1)
    again = platform.json("venue", "publish", str(SAMPLES))
    assert (again["published"], again["unchanged"], again["bytes"]) == (0, 10, 0)
    bucket = platform.settings.venues["binance"].bucket
    keys = [
        entry["Key"] for entry in s3(platform.settings.object_store).list_objects(Bucket=bucket)["Contents"]
    ]
    assert KLINES in keys
    assert f"{KLINES}.CHECKSUM" in keys


def test_the_samples_come_in(collected: dict[str, Any]) -> None:
    assert collected["complete"]
    assert (collected["found"], collected["copied"], collected["verified"]) == (5, 5, 5)
    assert (collected["skipped"], collected["failed"], collected["failures"]) == (0, 0, [])
    assert (collected["rows_written"], collected["rows_quarantined"]) == (1440 + 1440 + 24 + 105280 + 90, 0)
    assert collected["rows_refined"] == collected["rows_written"]
    assert "/runs/flow-run/" in collected["flow_run"]


def test_the_second_time_nothing_is_copied(platform: Deployed, collected: dict[str, Any]) -> None:
    again = platform.json(
        *("collect", "--venue", "binance", "--market", "spot", "--type", "klines", "--interval", "1m"),
        *("--symbol", "BTCUSDT", "--from", "2020-01-01", "--to", "2020-01-02"),
    )
    assert again["complete"]
    assert (again["found"], again["copied"], again["skipped"], again["rows_written"]) == (2, 0, 2, 0)


def test_the_runs_page_shows_the_state_and_the_summary(platform: Deployed, collected: dict[str, Any]) -> None:
    engine = platform.settings.workflow_engine
    assert engine.auth_string is not None
    user, _, password = engine.auth_string.get_secret_value().partition(":")
    run_id = collected["flow_run"].rpartition("/")[2]
    of_run = {"flow_runs": {"id": {"any_": [run_id]}}}
    with httpx.Client(base_url=engine.api_url, auth=(user, password), timeout=20) as prefect:
        # The mirror follows the batch, a little later.
        eventually(lambda: prefect.get(f"/flow_runs/{run_id}").json()["state_type"] == "COMPLETED")
        run = prefect.get(f"/flow_runs/{run_id}").json()
        assert (run["state"]["name"], run["tags"]) == ("Done", ["binance"])
        assert run["parameters"]["selection"]["venue"] == "binance"
        eventually(lambda: len(prefect.post("/artifacts/filter", json=of_run).json()) == 1)
        (artifact,) = prefect.post("/artifacts/filter", json=of_run).json()
        assert artifact["key"] == "collection-summary"
        assert "| rows written to bronze | 108,274 |" in artifact["data"]


def test_silver_holds_the_rows_with_their_times(platform: Deployed, collected: dict[str, Any]) -> None:
    (row,) = platform.json(
        "sql",
        "select venue, market, symbol, interval, count(*) as n, count(distinct open_time) as times,"
        " min(open_time) as first, max(open_time) as last"
        " from silver.candles where interval = '1m' group by all",
    )
    assert row == {
        "venue": "binance",
        "market": "spot",
        "symbol": "BTCUSDT",
        "interval": "1m",
        "n": 2880,
        "times": 2880,
        "first": "2020-01-01T00:00:00.000000Z",
        "last": "2020-01-02T23:59:00.000000Z",
    }


def test_people_see_a_table(platform: Deployed, collected: dict[str, Any]) -> None:
    told = platform.run(
        "sql", "select symbol, count(*) as n from silver.agg_trades group by all", "--rows", "1"
    )
    assert "BTCUSD_PERP" in told
    assert "105280" in told
    many = platform.start("sql", "select open_time, open_time from silver.candles", "--rows", "3")
    out, err = many.communicate(timeout=240)
    assert out.count("2020-01-0") + out.count("2026-05-08") == 6
    assert "3 of 2,904 rows" in err


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("select nonsense from silver.candles", "nonsense"),
        ("select * from silver.nowhere", "Tables that there can be: silver.agg_trades"),
        ("drop table silver.candles", "exactly one SELECT statement"),
        ("selec 1", "syntax error"),
    ],
)
def test_a_wrong_statement_is_the_persons_mistake(
    platform: Deployed, collected: dict[str, Any], statement: str, message: str
) -> None:
    assert message in platform.run("sql", statement, expect=2)


def test_the_catalogue_lists_series_with_what_was_collected(
    platform: Deployed, collected: dict[str, Any]
) -> None:
    series = platform.json("archive", "list", "--venue", "binance", "--market", "spot", "--interval", "1m")
    assert series == [
        {
            "venue": "binance",
            "market": "spot",
            "data_type": "klines",
            "symbol": "BTCUSDT",
            "interval": "1m",
            "files": 2,
            "size": 140090,
            "first": "2020-01-01",
            "last": "2020-01-02",
            "missing_days": 0,
            "gaps": [],
            "collected": 2,
            "reissued": 0,
        }
    ]
    told = platform.run("archive", "list", "--venue", "binance")
    assert "BTCUSD_PERP" in told
    assert "2 of 2" in told


def test_the_catalogue_lists_files(platform: Deployed, collected: dict[str, Any]) -> None:
    files = platform.json("archive", "list", "--venue", "binance", "--files", "--to", "2020-01-01")
    assert [(file["key"], file["size"], file["collected"]) for file in files] == [(KLINES, 69497, True)]
    assert KLINES in platform.run("archive", "list", "--venue", "binance", "--files")


def test_the_catalogue_says_what_was_never_published(platform: Deployed, collected: dict[str, Any]) -> None:
    process = platform.start("archive", "list", "--venue", "binance", "--symbol", "NOBODY")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0
    assert "never published by binance, though often listed: spot bookDepth" in err
    assert "the catalogue knows no such file" in err


def test_a_selection_without_files_is_complete_and_says_so(platform: Deployed) -> None:
    process = platform.start("collect", "--venue", "binance", "--market", "spot", "--symbol", "NOBODY")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert "the venue shows no such file" in err


def test_gaps_are_shown_before_they_are_found(platform: Deployed, tmp_path: Path) -> None:
    for day in (1, 4, 6, 8, 10):
        name = f"GAPS-aggTrades-2024-02-{day:02}.zip"
        copy = tmp_path / f"data/spot/daily/aggTrades/GAPS/{name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"PK not really a zip")
    platform.run("venue", "publish", str(tmp_path))
    summary = platform.json(
        "collect", "--venue", "binance", "--type", "aggTrades", "--symbol", "GAPS", expect=1
    )
    assert (summary["found"], summary["failed"], summary["complete"]) == (5, 5, False)
    assert {failure["code"] for failure in summary["failures"]} == {"sidecar-missing"}
    told = platform.run("archive", "list", "--venue", "binance", "--symbol", "GAPS")
    assert "5 days: 2024-02-02…2024-02-03, 2024-02-05, 2024-02-07 and 1 more" in told
    assert "0 of 5" in told


def test_a_reissued_file_is_collected_again_and_the_old_version_stays(
    platform: Deployed, collected: dict[str, Any], tmp_path: Path
) -> None:
    base = SAMPLES / "data/futures/um/monthly/fundingRate/BTCUSDT"
    name = "BTCUSDT-fundingRate-2026-04.zip"
    target = tmp_path / "data/futures/um/monthly/fundingRate/BTCUSDT" / name
    target.parent.mkdir(parents=True)
    shutil.copy(base / name, target)
    with target.open("ab") as file:
        file.write(b"\0" * 10)  # trailing bytes: the same rows under another checksum
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_name(f"{name}.CHECKSUM").write_text(f"{digest}  {name}\n")
    assert platform.json("venue", "publish", str(tmp_path))["published"] == 2
    summary = platform.json("collect", "--venue", "binance", "--type", "fundingRate")
    assert (summary["copied"], summary["failed"], summary["rows_written"]) == (1, 0, 90)
    (row,) = platform.json("sql", "select count(*) as n from silver.funding_rates")
    assert row == {"n": 90}
    landing = platform.settings.object_store.landing_bucket
    versions = s3(platform.settings.object_store).list_object_versions(
        Bucket=landing, Prefix="binance/data/futures/um"
    )
    assert len(versions["Versions"]) == 2
    (series,) = platform.json("archive", "list", "--venue", "binance", "--type", "fundingRate")
    assert (series["collected"], series["reissued"]) == (1, 1)
    process = platform.start("archive", "list", "--venue", "binance", "--type", "fundingRate")
    _, err = process.communicate(timeout=240)
    assert "the venue re-issued 1 of them after they were collected" in err


def test_a_venue_that_is_away_fails_the_run_with_what_to_do(platform: Deployed) -> None:
    arguments = (
        "collect",
        "--venue",
        "binance",
        "--type",
        "fundingRate",
        "--venue-endpoint",
        "http://127.0.0.1:1",
    )
    summary = platform.json(*arguments, expect=1)
    assert summary["state"] == "failed"
    assert summary["error"]["code"] == "venue-unreachable"
    assert "127.0.0.1:1" in summary["error"]["message"]


def test_status_needs_a_platform_file_with_services(platform: Deployed) -> None:
    assert "these settings name no services" in platform.run("status", expect=2)


def test_publishing_needs_a_stand_in(platform: Deployed, tmp_path: Path) -> None:
    elsewhere = platform.settings.model_copy(update={"venues": {}})
    file = tmp_path / "platform.json"
    file.write_text(elsewhere.to_json())
    public = Deployed(elsewhere, file, platform.worker)
    assert "has no stand-in for binance" in public.run("venue", "publish", str(SAMPLES), expect=2)


def test_a_store_that_is_down_is_told(platform: Deployed, tmp_path: Path) -> None:
    store = platform.settings.object_store.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    broken = platform.settings.model_copy(
        update={
            "object_store": store,
            "venues": {
                "binance": platform.settings.venues["binance"].model_copy(update={"endpoint": store.endpoint})
            },
        }
    )
    file = tmp_path / "platform.json"
    file.write_text(broken.to_json())
    told = Deployed(broken, file, platform.worker).run("venue", "publish", str(SAMPLES), expect=3)
    assert "the object store failed" in told


def test_the_lake_is_as_the_ledger_says(platform: Deployed, collected: dict[str, Any]) -> None:
    told = platform.json("lake", "verify")
    assert (told["whole"], told["differences"]) == (True, [])
    assert told["rows"] >= collected["rows_written"]
    assert "all is as the ledger says" in _errors_of(platform, "lake", "verify")


def test_some_files_are_taken_over_again(platform: Deployed, collected: dict[str, Any]) -> None:
    assert "a selection needs --venue" in platform.run("lake", "rebuild", "--type", "klines", expect=2)
    (summary,) = platform.json(
        "lake", "rebuild", "--venue", "binance", "--market", "um", "--type", "fundingRate"
    )
    assert (summary["complete"], summary["found"], summary["rows_written"]) == (True, 1, 90)
    assert platform.json("sql", "select count(*) as n from silver.funding_rates") == [{"n": 90}]


def test_a_lake_that_is_lost_is_told_and_made_anew(platform: Deployed, collected: dict[str, Any]) -> None:
    store = platform.settings.object_store
    client = s3(store)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=store.lake_bucket):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        client.delete_objects(Bucket=store.lake_bucket, Delete={"Objects": keys})
    assert "lake rebuild" in platform.run("collect", "--venue", "binance", "--all", expect=1)
    told = platform.json("lake", "verify", expect=1)
    assert told["counts"] == {"another-store": 1}
    assert "another-store" in platform.run("lake", "verify", expect=1)
    assert "as a whole" in platform.run("lake", "rebuild", "--venue", "binance", "--type", "klines", expect=2)
    (summary,) = platform.json("lake", "rebuild", "--yes")
    assert summary["complete"]
    assert summary["rows_refined"] == summary["rows_written"]
    assert platform.json("lake", "verify")["whole"]
    assert "nothing to do" in _errors_of(platform, "lake", "accept-landing")


def test_a_lake_is_not_given_up_without_a_word(platform: Deployed, collected: dict[str, Any]) -> None:
    process = platform.start("lake", "rebuild")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "are deleted" in err
    assert platform.json("lake", "verify")["whole"]


def _errors_of(platform: Deployed, *arguments: str) -> str:
    """What a command that succeeds says on stderr."""
    process = platform.start(*arguments)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return err
