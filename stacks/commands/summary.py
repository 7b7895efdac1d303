"""The summary of `make up`: the rows of the silver tables, and the pages of the services."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marketlake.settings import ServiceInfo
from rich.box import SIMPLE
from rich.table import Table

_TIME = "%Y-%m-%d %H:%M"

Query = Callable[[str], list[dict[str, Any]]]
"""Runs one SQL statement and returns its rows by column name."""

_COLUMNS = """\
select table_name, min_by(column_name, ordinal_position) as time_column
from information_schema.columns
where table_schema = 'silver' and data_type like 'TIMESTAMP%'
group by table_name order by table_name"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSummary:
    """One silver table."""

    table: str
    rows: int
    symbols: int
    first: str | None
    """Time of the first row, UTC."""
    last: str | None


def silver_tables(query: Query) -> list[TableSummary]:
    """The silver tables with the number of their rows and the time that they span."""
    found = query(_COLUMNS)
    if not found:
        return []
    rows = query(" union all ".join(_summary(row["table_name"], row["time_column"]) for row in found))
    return [
        TableSummary(
            table=row["table_name"],
            rows=int(row["row_count"]),
            symbols=int(row["symbols"]),
            first=row["first_time"],
            last=row["last_time"],
        )
        for row in sorted(rows, key=lambda row: str(row["table_name"]))
    ]


def _summary(table: str, column: str) -> str:
    name, time = _quoted(table), _quoted(column)
    return (
        f"select 'silver.' || '{table}' as table_name, count(*) as row_count, "  # noqa: S608 - of our own schema
        f"count(distinct symbol) as symbols, strftime(min({time}), '{_TIME}') as first_time, "
        f"strftime(max({time}), '{_TIME}') as last_time from silver.{name}"
    )


def rows_of(text: str) -> list[dict[str, Any]]:
    """The rows that `marketlake sql --json` printed."""
    answer = json.loads(text)
    return list(answer["rows"] if isinstance(answer, Mapping) else answer)


def summary_table(tables: Sequence[TableSummary]) -> Table:
    """For the terminal: a line for each silver table."""
    table = Table(title="What came out", title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("table", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("symbols", justify="right", no_wrap=True)
    table.add_column("first (UTC)", no_wrap=True)
    table.add_column("last (UTC)", no_wrap=True)
    for summary in tables:
        span = (summary.first or "-", summary.last or "-")
        table.add_row(summary.table, f"{summary.rows:,}", str(summary.symbols), *span)
    return table


def console_table(services: Iterable[ServiceInfo]) -> Table:
    """For the terminal: the web pages of the services."""
    table = Table("service", "page", title="Where to look", title_justify="left", box=SIMPLE, pad_edge=False)
    for service in services:
        if service.console:
            table.add_row(service.name, service.console)
    return table


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
