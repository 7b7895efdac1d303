"""`marketlake lake`: compare the lake with the ledger, and make it anew from landing."""

import time
from dataclasses import asdict
from uuid import uuid4

import typer
from opentelemetry.trace import SpanKind

from marketlake.archive import ledger
from marketlake.archive.collection import batches
from marketlake.archive.collection.batches import Source
from marketlake.archive.collection.plan import selected_datasets
from marketlake.archive.collection.stores import LAKE, LANDING, Stores
from marketlake.archive.upkeep import Maintainer, Verification, forget, verify
from marketlake.cli.collect import followed, show
from marketlake.cli.exit_codes import ExitCode, UsageError, say
from marketlake.cli.output import print_json, print_table, size
from marketlake.cli.selection import SelectionOptions, select
from marketlake.domain.archive import Selection
from marketlake.infrastructure import telemetry
from marketlake.infrastructure.postgres import Postgres, migrate
from marketlake.infrastructure.storage.stores import Lake, landing_store
from marketlake.settings import Settings

_SHOWN = 50


def verified(environment: str | None, *, as_json: bool) -> ExitCode:
    """Compare the ledger, landing and bronze."""
    settings = Settings.load(environment)
    with Postgres(settings.database, application="marketlake lake verify") as postgres:
        migrate(postgres)
        lake = Lake.of(settings.object_store)
        found = verify(postgres, _stores(settings, lake), lake)
    if as_json:
        print_json(
            {
                "whole": found.whole,
                "files": found.files,
                "data_files": found.data_files,
                "rows": found.rows,
                "counts": dict(found.counts),
                "differences": [asdict(difference) for difference in found.differences],
            }
        )
    else:
        _show(found)
    return ExitCode.COMPLETE if found.whole else ExitCode.INCOMPLETE


def maintained(environment: str | None, *, dry_run: bool, as_json: bool) -> ExitCode:
    """Compact, checkpoint, clean up and delete what is due, or only tell it."""
    settings = Settings.load(environment)
    with Postgres(settings.database, application="marketlake lake maintain") as postgres:
        migrate(postgres)
        maintainer = Maintainer(postgres, Lake.of(settings.object_store), settings.object_store)
        done = maintainer.maintain(wait=_Patience(), dry_run=dry_run)
    if as_json:
        print_json(asdict(done))
        return ExitCode.COMPLETE
    columns = ("table", "data files merged", "bytes", "checkpoint", "objects deleted")
    rows = [
        (table.table, table.merged, size(table.merged_size), table.checkpoint, table.deleted)
        for table in done.tables
    ]
    print_table(columns, rows, right=columns[1:3] + columns[4:])
    say(f"{done.uploads} unfinished uploads given up{'; this was a dry run' if dry_run else ''}")
    return ExitCode.COMPLETE


def rebuilt(
    environment: str | None, options: SelectionOptions | None, *, agreed: bool, as_json: bool
) -> ExitCode:
    """Take files over from landing again: those that are selected, or all, into a lake made anew."""
    selection = None
    if options is not None:
        venue, selection = select(options)
        selected_datasets(venue, selection)  # refuse what cannot be taken over before anything is started
    settings = Settings.load(environment)
    telemetry.configure("marketlake-cli", settings, stream=None)
    try:
        with (
            Postgres(settings.database, application="marketlake lake rebuild") as postgres,
            telemetry.span("marketlake lake rebuild", kind=SpanKind.CLIENT),
        ):
            migrate(postgres)
            selections = [selection] if selection else _given_up(settings, postgres, agreed=agreed)
            if selection:
                _require(settings, postgres)
            ended = [_redone(settings, postgres, one, as_json=as_json) for one in selections]
    finally:
        telemetry.flush()
    if as_json:
        print_json([summary for summary, _ in ended])
    return max((code for _, code in ended), default=ExitCode.COMPLETE)


def accepted(environment: str | None, *, agreed: bool) -> ExitCode:
    """Take note of a landing that is another one than the ledger speaks of."""
    settings = Settings.load(environment)
    with Postgres(settings.database, application="marketlake lake accept-landing") as postgres:
        migrate(postgres)
        stores = _stores(settings, Lake.of(settings.object_store))
        if LANDING not in stores.changed(postgres):
            say("landing is the one that the ledger speaks of: nothing to do")
            return ExitCode.COMPLETE
        _agree(
            "What the lake holds was made from a landing that is not there any more, and could not be rebuilt.",
            agreed=agreed,
        )
        stores.accept(postgres, LANDING)
    say("the ledger speaks of this landing now")
    return ExitCode.COMPLETE


def _given_up(settings: Settings, postgres: Postgres, *, agreed: bool) -> list[Selection]:
    """Give the lake up, and return a selection of everything for each venue."""
    stores = _stores(settings, Lake.of(settings.object_store))
    if LANDING in stores.changed(postgres):
        raise UsageError(
            "landing is gone, or another one than the ledger speaks of: a lake cannot be made from it. What the "
            "lake holds stays; `marketlake lake accept-landing` takes note of the other landing."
        )
    _agree(
        f"All tables in the bucket {settings.object_store.lake_bucket} are deleted, and made anew from landing.",
        agreed=agreed,
    )
    say(f"{forget(postgres, stores):,} files have to be taken over from landing")
    with postgres.transaction() as connection:
        return [Selection(venue=venue) for venue in ledger.venues(connection)]


def _require(settings: Settings, postgres: Postgres) -> None:
    changed = _stores(settings, Lake.of(settings.object_store)).changed(postgres)
    if LAKE in changed:
        raise UsageError(
            "the lake is gone, or another one than the ledger speaks of: rebuild it as a whole, without a selection."
        )


def _redone(
    settings: Settings, postgres: Postgres, selection: Selection, *, as_json: bool
) -> tuple[dict[str, object], ExitCode]:
    batch_id = uuid4()
    with postgres.transaction() as connection:
        traceparent = telemetry.current_traceparent()
        batches.request(connection, batch_id, selection, None, traceparent=traceparent, source=Source.LANDING)
    summary, code = followed(settings, postgres, batch_id, quiet=as_json)
    if not as_json:
        show(summary)
    return summary, code


def _stores(settings: Settings, lake: Lake) -> Stores:
    return Stores(landing_store(settings.object_store), lake.bucket)


def _agree(what: str, *, agreed: bool) -> None:
    """Go on only if a person says so.

    Raises:
        typer.Abort: the person does not.
    """
    if not agreed:
        typer.confirm(f"{what} Go on?", abort=True, err=True)


def _show(found: Verification) -> None:
    say(f"{found.files:,} files, {found.data_files:,} data files, {found.rows:,} rows of bronze")
    if found.whole:
        say("all is as the ledger says")
        return
    shown = found.differences[:_SHOWN]
    print_table(("what", "where", "detail"), [(one.kind, one.name, one.detail) for one in shown])
    more = found.counts.total() - len(shown)
    if more:
        say(f"… and {more:,} more: --json lists them")
    say(
        "`marketlake lake rebuild` takes the files over from landing again; what landing lacks, collect again"
    )


class _Patience:
    """Waits for a worker that is at it; says so once."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, seconds: float) -> bool:
        if not self._said:
            say("a worker maintains the lake at this moment: waiting for its end")
            self._said = True
        time.sleep(seconds)
        return False
