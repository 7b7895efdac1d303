"""What came out of `make up`: the rows of the silver tables, and where to look at everything."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marketlake.settings import ServiceInfo
from rich.table import Table

Query = Callable[[str], list[dict[str, Any]]]
"""Runs one SQL statement and returns its rows by column name."""

_COLUMNS = """\
select table_name, min_by(column_name, ordinal_position) as time_column
from information_schema.columns
where table_schema = 'silver' and data_type like 'TIMESTAMP%'
group by table_name order by table_name"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOutcome:
    """One silver table."""

    table: str
    rows: int
    symbols: int
    first: str | None
    """Time of the first row, UTC."""
    last: str | None


def silver_tables(query: Query) -> list[TableOutcome]:
    """The silver tables with the number of their rows and the time that they span."""
    outcomes = []
    for found in query(_COLUMNS):
        table, column = _quoted(found["table_name"]), _quoted(found["time_column"])
        (row,) = query(
            f"select count(*) as rows, count(distinct symbol) as symbols, "  # noqa: S608 - quoted names
            f"strftime(min({column}), '%Y-%m-%d %H:%M:%S') as first, "
            f"strftime(max({column}), '%Y-%m-%d %H:%M:%S') as last from silver.{table}"
        )
        outcomes.append(
            TableOutcome(
                table=f"silver.{found['table_name']}",
                rows=int(row["rows"]),
                symbols=int(row["symbols"]),
                first=row["first"],
                last=row["last"],
            )
        )
    return outcomes


def rows_of(text: str) -> list[dict[str, Any]]:
    """The rows that `marketlake sql --json` printed."""
    answer = json.loads(text)
    return list(answer["rows"] if isinstance(answer, Mapping) else answer)


def outcome_table(outcomes: Sequence[TableOutcome]) -> Table:
    """For the terminal: a line for each silver table."""
    table = Table(
        "table", "rows", "symbols", "first (UTC)", "last (UTC)", title="What came out", title_justify="left"
    )
    for column in table.columns[1:3]:
        column.justify = "right"
    for outcome in outcomes:
        table.add_row(
            outcome.table,
            f"{outcome.rows:,}",
            str(outcome.symbols),
            outcome.first or "-",
            outcome.last or "-",
        )
    return table


def console_table(services: Iterable[ServiceInfo]) -> Table:
    """For the terminal: the web pages of the services."""
    table = Table("service", "page", title="Where to look", title_justify="left")
    for service in services:
        if service.console:
            table.add_row(service.name, service.console)
    return table


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
