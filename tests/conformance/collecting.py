"""Files come in whole, once, and under all their versions; and what happened can be looked up."""

from collections.abc import Iterator
from typing import Any

import httpx
from marketlake.settings import Telemetry

from tests.conformance.holdings import SILVER, counts, whole
from tests.conformance.platform import Platform
from tests.waiting import eventually

_SPAN_STEPS = ("discover", "copy", "bronze commit", "silver commit")
_SPAN_SERVICES = ("cli", "flow", "worker")


class CollectionPromises:
    """What is true once the sample files were collected."""

    def test_the_sample_files_came_out_whole(self, platform: Platform) -> None:
        assert counts(platform) == whole()
        for table, rows in SILVER.items():
            assert platform.sql(f"select count(*) as n from {table}") == [{"n": rows}], table  # noqa: S608 - ours
        days = platform.sql(
            "select min(open_time) as first, max(open_time) as last, count(distinct open_time) as n "
            "from silver.candles where interval = '1m'"
        )
        assert days[0]["n"] == 2880
        assert str(days[0]["first"]).startswith("2020-01-01")
        assert str(days[0]["last"]).startswith("2020-01-02")

    def test_one_trace_runs_from_the_command_to_the_delta_commit(self, platform: Platform) -> None:
        def missing() -> list[str]:
            return min((_lacking(trace) for trace in _traces(platform)), key=len, default=["any trace"])

        eventually(lambda: not missing(), within_s=60, telling=missing)

    def test_logs_carry_that_trace(self, platform: Platform) -> None:
        telemetry = platform.settings.telemetry

        def found() -> bool:
            whole_ones = [trace["traceID"] for trace in _traces(platform) if not _lacking(trace)]
            return any(_log_lines(telemetry, f"trace_id:{trace} _time:1h") for trace in whole_ones)

        eventually(found, within_s=60)

    def test_metrics_count_files_bytes_and_rows(self, platform: Platform) -> None:
        telemetry = platform.settings.telemetry
        for what in ("files", "bytes", "rows"):
            eventually(lambda what=what: any(what in name for name in _series(telemetry)), within_s=60)

    def test_the_logs_of_the_services_are_in_the_store(self, platform: Platform) -> None:
        telemetry = platform.settings.telemetry
        for service in ("database", "event-bus", "trace-store", "workflow-engine"):
            eventually(
                lambda name=service: _log_lines(telemetry, f'_time:1h service.name:"{name}"'),
                within_s=60,
                telling=lambda name=service: f"no line of {name}",
            )

    def test_the_catalogue_knows_what_is_collected(self, platform: Platform) -> None:
        listed = {
            (series["symbol"], series["data_type"], series["interval"]): (
                series["files"],
                series["collected"],
                series["reissued"],
            )
            for series in platform.asked("archive", "list", "--venue", "binance")
        }
        assert listed == {
            ("BTCUSD_PERP", "aggTrades", None): (1, 1, 0),
            ("BTCUSDT", "fundingRate", None): (1, 1, 0),
            ("BTCUSDT", "klines", "1h"): (1, 1, 0),
            ("BTCUSDT", "klines", "1m"): (2, 2, 0),
        }


def _lacking(trace: dict[str, Any]) -> list[str]:
    """What of a whole collection a trace does not have."""
    services = {process["serviceName"] for process in trace["processes"].values()}
    names = {span["operationName"] for span in trace["spans"]}
    lacking = [part for part in _SPAN_SERVICES if not any(part in service for service in services)]
    return lacking + [step for step in _SPAN_STEPS if not any(step in name for name in names)]


def _traces(platform: Platform) -> Iterator[dict[str, Any]]:
    base = platform.settings.telemetry.traces_url
    for name in httpx.get(f"{base}/api/services").json()["data"] or []:
        query = {"service": name, "limit": "50", "lookback": "1h"}
        yield from httpx.get(f"{base}/api/traces", params=query).json()["data"] or []


def _log_lines(telemetry: Telemetry, query: str) -> str:
    answer = httpx.get(
        f"{telemetry.logs_url}/select/logsql/query",
        params={"query": query, "limit": "5"},
        auth=_credentials(telemetry),
    )
    return answer.raise_for_status().text.strip()


def _series(telemetry: Telemetry) -> set[str]:
    answer = httpx.get(
        f"{telemetry.metrics_url}/api/v1/series",
        params={"match[]": '{__name__=~"marketlake.*"}'},
        auth=_credentials(telemetry),
    )
    return {item["__name__"] for item in answer.json()["data"]}


def _credentials(telemetry: Telemetry) -> tuple[str, str]:
    assert telemetry.password
    return telemetry.username or "", telemetry.password.get_secret_value()
