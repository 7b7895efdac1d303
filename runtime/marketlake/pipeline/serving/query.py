"""SQL over the lake: DuckDB in this process, reading the Delta tables through Arrow.

DuckDB needs no extension for it, and the statement itself can reach neither files nor the network: only the
tables that are handed to it.
"""

import re
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from opentelemetry import trace

from marketlake.errors import MarketlakeError
from marketlake.infrastructure.storage.stores import STORE_ERRORS, Lake, storage_error
from marketlake.pipeline.batch.silver import GAPS
from marketlake.pipeline.contracts.catalogue import CATALOGUE
from marketlake.pipeline.contracts.tables import contracts
from marketlake.pipeline.quality.quarantine import QUARANTINE
from marketlake.settings import Settings

_LOCKED = {
    "TimeZone": "'UTC'",
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}

_STREAM_FAILED = "reading the stream registered as"
"""How DuckDB says that not the statement failed, but what it read from."""

_tracer = trace.get_tracer("marketlake")


class SqlError(MarketlakeError):
    """The statement cannot be answered; the message says why, and which tables there are."""

    code = "sql"


def tables() -> dict[str, str]:
    """Return the names of all tables that can exist, as they are queried, and their paths below the lake's root."""
    promised = {contract.table: contract.path for contract in contracts()}
    return {**promised, "gaps": GAPS.path, "quarantine": QUARANTINE.path, "catalogue": CATALOGUE.path}


def query(settings: Settings, sql: str) -> pa.Table:
    """Return the answer to one SELECT statement over the lake's tables, each at its newest version.

    Args:
        settings: the environment.
        sql: in DuckDB's dialect.

    Raises:
        SqlError: the statement is wrong, does more than read, or names a table that is not there (yet).
        StorageError: the object store failed.
    """
    return query_lake(Lake.of(settings.object_store), sql)


def query_lake(lake: Lake, sql: str) -> pa.Table:
    """:func:`query`, told where the lake is."""
    with (
        _tracer.start_as_current_span("query", attributes={"db.system.name": "duckdb", "db.query.text": sql}),
        duckdb.connect(":memory:") as connection,
    ):
        known = dict(_register(connection, lake, sql))
        for name, value in _LOCKED.items():
            connection.execute(f"set {name} = {value}")
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise SqlError(
                    "exactly one SELECT statement can be run: the lake's tables are only read here, and "
                    "written by collecting."
                )
            return connection.sql(statements[0]).to_arrow_table()
        except duckdb.Error as error:
            if _STREAM_FAILED in str(error):
                raise storage_error(error, "reading the lake's tables") from error
            raise SqlError(_explain(str(error), known)) from error


def _register(connection: duckdb.DuckDBPyConnection, lake: Lake, sql: str) -> Iterator[tuple[str, bool]]:
    """Make the tables known under their names; tells of each whether it is there.

    Only tables whose name occurs in the statement are opened, and all if it asks for the schema itself.
    """
    everything = re.search(r"information_schema|duckdb_|pragma|show|describe|summarize", sql, re.IGNORECASE)
    for name, path in tables().items():
        if not everything and name.rpartition(".")[2] not in sql.lower():
            yield name, True
            continue
        dataset = _dataset(lake, path)
        yield name, dataset is not None
        if dataset is not None:
            schema = name.partition(".")[0] if "." in name else "main"
            source = f"delta {name}"
            connection.register(source, dataset)
            connection.execute(f"create schema if not exists {schema}")
            connection.execute(f'create view {name} as from "{source}"')


def _dataset(lake: Lake, path: str) -> Any:
    try:
        return DeltaTable(lake.uri(path), storage_options=lake.options).to_pyarrow_dataset()
    except TableNotFoundError:
        return None
    except STORE_ERRORS as error:
        raise storage_error(error, f"opening the table {path}") from error


def _explain(message: str, known: dict[str, bool]) -> str:
    reason = message.split("\n\nLINE", maxsplit=1)[0].strip()
    missing = [name for name, there in known.items() if not there]
    if missing:
        return (
            f"{reason}\nNothing was collected yet for: {', '.join(missing)}. Fill a table with `marketlake "
            "collect`."
        )
    return f"{reason}\nTables that there can be: {', '.join(known)}."
