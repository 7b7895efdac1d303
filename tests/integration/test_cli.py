"""The whole way of the data, through the command line, on real servers with real sample files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from marketlake.settings import Settings

from tests.deployed import Deployed, deployed

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="module")
def platform(settings: Settings, servers_folder: Path) -> Iterator[Deployed]:
    with deployed(settings, servers_folder, "cli") as platform:
        yield platform


def test_the_samples_come_in_and_can_be_queried(platform: Deployed) -> None:
    published = platform.json("venue", "publish", str(SAMPLES))
    assert (published["published"], published["unchanged"], published["ignored"]) == (10, 0, 1)
    again = platform.json("venue", "publish", str(SAMPLES))
    assert (again["published"], again["unchanged"]) == (0, 10)
    summary = platform.json("collect", "--venue", "binance", "--all")
    assert summary["complete"]
    assert (summary["found"], summary["copied"], summary["failed"]) == (5, 5, 0)
    assert (summary["rows_written"], summary["rows_quarantined"]) == (1440 + 1440 + 24 + 105280 + 90, 0)
    second = platform.json("collect", "--venue", "binance", "--all")
    assert (second["copied"], second["skipped"], second["rows_written"]) == (0, 5, 0)
    (row,) = platform.json("sql", "select count(*) as n, min(open_time) as first from silver.klines")
    assert row == {"n": 2904, "first": "2020-01-01T00:00:00.000000Z"}
