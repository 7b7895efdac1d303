"""`marketlake archive list`: the catalogue, and which of its files the ledger has."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from marketlake.archive import ledger
from marketlake.archive.discovery.catalogue import Catalogue, Holding
from marketlake.archive.discovery.discover import absent_datasets
from marketlake.cli.exit_codes import ExitCode, say
from marketlake.cli.output import print_json, print_table, size
from marketlake.cli.selection import SelectionOptions, select
from marketlake.domain.archive import ArchiveFile, Selection
from marketlake.domain.venue import Venue
from marketlake.infrastructure.postgres import Postgres, migrate
from marketlake.infrastructure.storage.stores import Lake
from marketlake.settings import Settings

_SHOWN_GAPS = 3


def run(environment: str | None, options: SelectionOptions, *, files: bool, as_json: bool) -> ExitCode:
    """Print series, or files, that discoveries have seen."""
    venue, selection = select(options)
    settings = Settings.load(environment)
    catalogue = Catalogue(Lake.of(settings.object_store))
    known = _known(settings, selection)
    if files:
        listed = catalogue.query(selection)
        rows = [_file_row(file, known) for file in listed]
        total = len(rows)
        columns: tuple[str, ...] = ("key", "size", "start", "end", "last_modified", "collected")
    else:
        rows = [_series_row(holding, known) for holding in catalogue.holdings(selection)]
        total = sum(row["files"] for row in rows)
        columns = (
            "market",
            "data_type",
            "symbol",
            "interval",
            "files",
            "size",
            "first",
            "last",
            "gaps",
            "collected",
        )
    if as_json:
        print_json(rows)
        return ExitCode.COMPLETE
    print_table(
        [column.replace("_", " ") for column in columns], _cells(rows, columns), right=("files", "size")
    )
    reissued = sum(int(row["reissued"]) for row in rows)
    if reissued:
        say(
            f"the venue re-issued {reissued} of them after they were collected; the former versions are in landing"
        )
    _remark(venue, selection, total)
    return ExitCode.COMPLETE


@dataclass(frozen=True, slots=True)
class Known:
    """Keys of files that the ledger has."""

    collected: set[str]
    reissued: set[str]
    """Those that came more than once, with different checksums."""


def _known(settings: Settings, selection: Selection) -> Known:
    with Postgres(settings.database, application="marketlake archive") as postgres:
        migrate(postgres)
        with postgres.transaction() as connection:
            return Known(
                ledger.collected_keys(connection, selection.venue, market=selection.market),
                {conflict.key for conflict in ledger.conflicts(connection, selection.venue)},
            )


def _series_row(holding: Holding, known: Known) -> dict[str, Any]:
    return {
        "venue": holding.venue,
        "market": holding.market,
        "data_type": holding.data_type,
        "symbol": holding.symbol,
        "interval": holding.interval,
        "files": holding.files,
        "size": holding.size,
        "first": holding.first,
        "last": holding.last,
        "missing_days": holding.missing_days,
        "gaps": [{"first": gap.first, "last": gap.last, "days": gap.days} for gap in holding.gaps],
        "collected": len(known.collected.intersection(holding.keys)),
        "reissued": len(known.reissued.intersection(holding.keys)),
    }


def _file_row(file: ArchiveFile, known: Known) -> dict[str, Any]:
    return {
        "venue": file.venue,
        "market": file.market,
        "data_type": file.data_type,
        "symbol": file.symbol,
        "interval": file.interval,
        "frequency": file.frequency,
        "key": file.key,
        "size": file.size,
        "start": file.start,
        "end": file.end,
        "etag": file.etag,
        "last_modified": file.last_modified,
        "checksum_file": file.sidecar_key,
        "collected": file.key in known.collected,
        "reissued": file.key in known.reissued,
    }


def _cells(rows: Iterable[dict[str, Any]], columns: Iterable[str]) -> Iterable[list[Any]]:
    for row in rows:
        shown = row | {"size": size(row["size"])}
        if "gaps" in row:
            shown["gaps"] = _gaps(row)
            shown["collected"] = f"{row['collected']} of {row['files']}"
        yield [shown[column] for column in columns]


def _gaps(row: dict[str, Any]) -> str:
    if not row["gaps"]:
        return "none"
    named = [
        str(gap["first"]) if gap["days"] == 1 else f"{gap['first']}…{gap['last']}"
        for gap in row["gaps"][:_SHOWN_GAPS]
    ]
    more = len(row["gaps"]) - len(named)
    return f"{row['missing_days']} days: {', '.join(named)}{f' and {more} more' if more else ''}"


def _remark(venue: Venue, selection: Selection, total: int) -> None:
    absent = ", ".join(
        f"{dataset.market} {dataset.data_type}" for dataset in absent_datasets(venue, selection)
    )
    if absent:
        say(f"never published by {venue.name}, though often listed: {absent}")
    if total == 0:
        say("the catalogue knows no such file: collections discover them, see `marketlake collect`")
    else:
        say(f"{total} files")
