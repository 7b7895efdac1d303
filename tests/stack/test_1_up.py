"""What a stack promises once it is up."""

import json
import stat
import time

import httpx
import psutil
import pytest
import testinfra

from tests.patience import eventually
from tests.stack.live import LiveStack

SILVER = {
    "silver.klines": 1440 + 1440 + 24,
    "silver.agg_trades": 105_280,
    "silver.funding_rate": 90,
}
SERVICES = {
    "collection-worker",
    "database",
    "event-bus",
    "log-store",
    "metrics-store",
    "object-store",
    "telemetry-collector",
    "trace-store",
    "workflow-engine",
    "workflow-worker",
}


def secrets_of(stack: LiveStack) -> set[str]:
    settings = stack.settings
    parts = (
        settings.object_store.secret_access_key,
        settings.event_bus.password,
        settings.database.password,
        settings.workflow_engine.auth_string,
        settings.telemetry.password,
    )
    found = {part.get_secret_value() for part in parts if part}
    return found | {text.partition(":")[2] for text in found if ":" in text}


def test_every_service_is_up_healthy_and_of_the_pinned_version(stack: LiveStack) -> None:
    states = {state["name"]: state for state in stack.status()}
    assert set(states) == SERVICES
    assert all(state["healthy"] for state in states.values()), states
    assert all(state["version"] for state in states.values())
    assert all(state["memory_bytes"] > 1_000_000 for state in states.values())


def test_the_sample_files_came_out_whole(stack: LiveStack) -> None:
    for table, rows in SILVER.items():
        assert stack.sql(f"select count(*) as n from {table}") == [{"n": rows}], table  # noqa: S608 - ours
    days = stack.sql(
        "select min(open_time) as first, max(open_time) as last, count(distinct open_time) as n "
        "from silver.klines where interval = '1m'"
    )
    assert days[0]["n"] == 2880
    assert str(days[0]["first"]).startswith("2020-01-01")
    assert str(days[0]["last"]).startswith("2020-01-02")


def test_nothing_listens_beyond_loopback(stack: LiveStack) -> None:
    listening = {
        (process.name(), connection.laddr.ip, connection.laddr.port)
        for process in stack.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) >= 10, "the servers were not seen at all"
    assert {ip for _, ip, _ in listening} <= {"127.0.0.1", "::1"}, listening


def test_the_ports_of_the_platform_file_are_the_ones_that_listen(stack: LiveStack) -> None:
    host = testinfra.get_host("local://")
    for service in stack.settings.services:
        if service.target and service.health == "tcp":
            assert host.socket(f"tcp://{service.target}").is_listening, service.name


def test_no_secret_is_in_the_process_list(stack: LiveStack) -> None:
    secrets = secrets_of(stack)
    assert len(secrets) >= 5
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        assert not any(secret in line for secret in secrets), process.name()


def test_no_secret_is_in_a_log_or_in_clear_in_the_state(stack: LiveStack) -> None:
    secrets = [secret.encode() for secret in secrets_of(stack)]
    read = 0
    for root in (stack.folder / "logs", stack.workspace.backend, stack.folder / "supervisor"):
        for path in root.rglob("*"):
            if path.is_file() and path.parent.name != "programs":
                content = path.read_bytes()
                read += len(content)
                assert not any(secret in content for secret in secrets), path
    assert read > 10_000, "there was nothing to look through"


def test_no_file_of_the_stack_can_be_read_by_others(stack: LiveStack) -> None:
    """Others may pass through folders (PostgreSQL's account has to), but read no file."""
    looked_at = 0
    for root in (stack.folder / "services", stack.folder / "supervisor", stack.folder / "logs"):
        for path in root.rglob("*"):
            if path.is_file():
                looked_at += 1
                assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
    assert looked_at > 10
    assert stat.S_IMODE((stack.folder / "platform.json").stat().st_mode) == 0o600


def test_anonymous_requests_reach_the_stand_in_venue_only(stack: LiveStack) -> None:
    endpoint = stack.settings.object_store.endpoint
    venue = stack.settings.venues["binance"]
    listing = httpx.get(f"{endpoint}/{venue.bucket}", params={"prefix": "data/spot/", "max-keys": "2"})
    assert listing.status_code == 200
    assert "<ListBucketResult" in listing.text
    assert httpx.get(f"{endpoint}/landing").status_code == 403
    assert httpx.put(f"{endpoint}/{venue.bucket}/data/x", content=b"x").status_code == 403


@pytest.mark.parametrize("path", ["flows/filter", "deployments/filter"])
def test_the_workflow_engine_wants_credentials(stack: LiveStack, path: str) -> None:
    url = f"{stack.settings.workflow_engine.api_url}/{path}"
    assert httpx.post(url, json={}).status_code == 401


def test_the_flow_is_visible_in_the_workflow_engine(stack: LiveStack) -> None:
    engine = stack.settings.workflow_engine
    assert engine.auth_string
    user, _, password = engine.auth_string.get_secret_value().partition(":")
    answer = httpx.post(f"{engine.api_url}/flow_runs/filter", json={}, auth=(user, password))
    assert "COMPLETED" in {run["state_type"] for run in answer.json()}


def test_one_trace_runs_from_the_command_to_the_delta_commit(stack: LiveStack) -> None:
    services: set[str] = set()
    names: set[str] = set()
    deadline = time.monotonic() + 60
    needed = {"cli", "flow", "worker"}
    while time.monotonic() < deadline:
        for trace in _traces(stack):
            present = {process["serviceName"] for process in trace["processes"].values()}
            if sum(any(part in name for name in present) for part in needed) == len(needed):
                services, names = present, {span["operationName"] for span in trace["spans"]}
        if services:
            break
        time.sleep(1)
    assert services, "no trace runs through command, flow and worker"
    for step in ("discover", "copy", "bronze commit", "silver commit"):
        assert any(step in name for name in names), (step, sorted(names))


def test_logs_carry_the_trace_and_metrics_count_the_files(stack: LiveStack) -> None:
    telemetry = stack.settings.telemetry
    assert telemetry.password
    auth = (telemetry.username or "", telemetry.password.get_secret_value())
    query = {"query": "trace_id:* _time:1h", "limit": "5"}

    def found() -> str:
        return httpx.get(f"{telemetry.logs_url}/select/logsql/query", params=query, auth=auth).text.strip()

    eventually(found, within_s=60)
    series = {"match[]": '{__name__=~"marketlake.*"}'}

    def names() -> set[str]:
        answer = httpx.get(f"{telemetry.metrics_url}/api/v1/series", params=series, auth=auth)
        return {item["__name__"] for item in answer.json()["data"]}

    for what in ("files", "bytes", "rows"):
        eventually(lambda what=what: any(what in name for name in names()), within_s=60)


def test_a_second_collection_copies_nothing(stack: LiveStack) -> None:
    again = json.loads(stack.marketlake("collect", "--venue", "binance", "--all", "--json").stdout)
    assert again["found"] == 5
    assert again["skipped"] == 5
    assert again["copied"] == again["failed"] == again["rows_written"] == 0


def test_the_catalogue_knows_what_is_collected(stack: LiveStack) -> None:
    listed = json.loads(stack.marketlake("archive", "list", "--venue", "binance", "--json").stdout)
    assert len(json.dumps(listed)) > 100
    assert "BTCUSD_PERP" in json.dumps(listed)


def test_a_second_up_changes_nothing_and_plain_pulumi_agrees(stack: LiveStack) -> None:
    stack.pulumi("preview", "--expect-no-changes")
    began = time.monotonic()
    summary = stack.pulumi("up", "--yes", "--skip-preview").stdout
    took = time.monotonic() - began
    assert "unchanged" in summary
    assert not any(word in summary for word in ("created", "updated", "replaced", "deleted"))
    assert took < 60, f"{took:.0f} s for nothing"


def test_outputs_name_the_addresses_and_no_secret(stack: LiveStack) -> None:
    outputs = stack.pulumi("stack", "output", "--json").stdout
    assert json.loads(outputs)
    assert "127.0.0.1" in outputs
    assert not any(secret in outputs for secret in secrets_of(stack))


def _traces(stack: LiveStack) -> list[dict]:
    base = stack.settings.telemetry.traces_url
    services = httpx.get(f"{base}/api/services").json()["data"] or []
    found: list[dict] = []
    for name in services:
        query = {"service": name, "limit": "50", "lookback": "1h"}
        found += httpx.get(f"{base}/api/traces", params=query).json()["data"] or []
    return found
