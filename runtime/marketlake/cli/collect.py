"""`marketlake collect`: request the collection and follow it to its end."""

from dataclasses import asdict
from typing import Any
from uuid import UUID, uuid4

from opentelemetry.trace import SpanKind

from marketlake.archive.collection import batches
from marketlake.archive.collection.plan import selected_datasets
from marketlake.cli.exit_codes import ExitCode, UsageError, say
from marketlake.cli.follower import Follower, RunResult
from marketlake.cli.output import print_json, print_table, size
from marketlake.cli.selection import SelectionOptions, endpoint_from, select
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.postgres import Postgres, migrate
from marketlake.settings import Settings

_SHOWN_FAILURES = 50


def run(
    environment: str | None,
    options: SelectionOptions,
    *,
    everything: bool,
    venue_endpoint: str | None,
    as_json: bool,
) -> ExitCode:
    """Collect the selected files."""
    venue, selection = select(options)
    if selection.market is None and selection.data_type is None and not everything:
        raise UsageError(
            f"this would collect all of {venue.name}: narrow it down with --market or --type, or say --all."
        )
    selected_datasets(venue, selection)  # refuse what cannot be collected before anything is started
    endpoint = endpoint_from(venue_endpoint, venue.default_endpoint) if venue_endpoint else None
    settings = Settings.load(environment)
    telemetry.configure("marketlake-cli", settings, stream=None)
    batch_id = uuid4()
    try:
        with (
            Postgres(settings.database, application="marketlake collect") as postgres,
            telemetry.span(
                "marketlake collect", kind=SpanKind.CLIENT, venue=selection.venue, batch=str(batch_id)
            ),
        ):
            migrate(postgres)
            with postgres.transaction() as connection:
                batches.request(
                    connection,
                    batch_id,
                    selection,
                    endpoint,
                    traceparent=telemetry.current_traceparent(),
                )
            summary, exit_code = followed(settings, postgres, batch_id, quiet=as_json)
    finally:
        telemetry.flush()
    if as_json:
        print_json(summary)
    else:
        show(summary)
    return exit_code


def followed(
    settings: Settings, postgres: Postgres, batch_id: UUID, *, quiet: bool
) -> tuple[dict[str, Any], ExitCode]:
    """Follow a batch to its end; return what there is to say about it, and the command's exit code."""
    trace_id = telemetry.current_trace_id()
    result = Follower(postgres, batch_id, quiet=quiet).follow()
    with postgres.transaction() as connection:
        failures = batches.failures(connection, batch_id)
        flow_run = batches.flow_run(connection, batch_id)
    summary = _summary(result, failures) | {
        "batch_id": batch_id,
        "flow_run": settings.workflow_engine.page(flow_run) if flow_run else None,
        "trace_id": trace_id,
    }
    return summary, result.exit_code


def _summary(result: RunResult, failures: list[batches.Failure]) -> dict[str, Any]:
    seen = result.progress
    return {
        "complete": result.exit_code is ExitCode.COMPLETE,
        "state": seen.state,
        "found": seen.found,
        "copied": seen.copied,
        "verified": seen.verified,
        "skipped": seen.skipped,
        "failed": seen.failed,
        "unfinished": seen.open + seen.cancelled,
        "bytes": seen.size,
        "rows_written": seen.rows,
        "rows_quarantined": seen.quarantined,
        "rows_refined": seen.refined_rows,
        "series_unrefined": seen.unrefined,
        "seconds": round(result.seconds, 1),
        "error": {"code": seen.error_code, "message": seen.error} if seen.error else None,
        "failures": [asdict(failure) for failure in failures],
    }


def show(summary: dict[str, Any]) -> None:
    """Print what there is to say about a batch, for people."""
    columns = ("found", "copied", "verified", "skipped", "failed", "rows_written", "rows_quarantined")
    print_table(
        [column.replace("_", " ") for column in columns],
        [[f"{summary[column]:,}" for column in columns]],
        right=[column.replace("_", " ") for column in columns],
    )
    failures = summary["failures"]
    if failures:
        print_table(
            ("file or series", "error", "what happened, and what to do"),
            [(failure["key"], failure["code"], failure["message"]) for failure in failures[:_SHOWN_FAILURES]],
        )
    if len(failures) > _SHOWN_FAILURES:
        say(f"… and {len(failures) - _SHOWN_FAILURES} more failures: --json lists all")
    if summary["unfinished"]:
        say(f"{summary['unfinished']} files are still to come: run the same command again to go on")
    if summary["error"]:
        say(f"error: {summary['error']['message']}")
    if summary["found"] == 0 and summary["state"] == "done":
        say("the venue shows no such file: check the symbol and the days, or `marketlake archive list`")
    if summary["series_unrefined"]:
        say(
            f"{summary['series_unrefined']} series are not refined: run the same command again to try once more"
        )
    shown = f"; run {summary['flow_run']}" if summary["flow_run"] else ""
    trace = f"; trace {summary['trace_id']}" if summary["trace_id"] else ""
    say(f"{size(summary['bytes'])} in {summary['seconds']} s; batch {summary['batch_id']}{shown}{trace}")
