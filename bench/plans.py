"""How PostgreSQL carries out the queries of the hot path when the ledger has a million rows: by an index, or not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from marketlake.archive import ledger
from marketlake.archive.collection import batches
from marketlake.archive.collection.tasks import GroupTask
from marketlake.domain.archive import Selection, Series
from marketlake.infrastructure.postgres import Connection, Postgres, migrate
from marketlake.pipeline.ingest import staging
from marketlake.settings import VenueEndpoint
from marketlake.workers import assignments
from psycopg.types.json import Jsonb

from tests import servers

ROWS, SYMBOLS, A_DATA_FILE = 1_000_000, 500, 30
BATCHES, TASKS = 25, 4000
SMALL = 2000
"""Rows up to which reading a whole table costs less than any index."""
_FILL = """
insert into data_file (table_name, path, size, rows, statistics, unit_id, state)
    select 'bronze/binance_klines', 'spot/' || n || '.parquet', 1000000, 43200, '{}', gen_random_uuid(), 'live'
    from generate_series(1, %(files)s) n;
insert into ledger (venue, key, version, market, data_type, symbol, interval, frequency, file_start, file_end, sha256,
    etag, size, last_modified, header, rows, quarantined, first_day, last_day, landing_key, data_file_id, batch_id,
    refined_at)
    select 'binance', key, 1, 'spot', 'klines', symbol, '1m', 'daily', day, day, 'a', 'e', 1000, now(), false, 1440, 0,
        day, day, 'binance/' || key, 1 + n / %(in_file)s, gen_random_uuid(), case when n %% 1000 <> 0 then now() end
    from (select n, 'S' || n %% %(symbols)s || 'USDT' as symbol, date '2019-01-01' + n / %(symbols)s as day,
        'data/spot/daily/klines/S' || n %% %(symbols)s || 'USDT/1m/' || (date '2019-01-01' + n / %(symbols)s) as key
        from generate_series(0, %(rows)s - 1) n) files;
analyze;
"""


@dataclass
class Explaining:
    """A connection that also keeps how each statement is carried out."""

    connection: Connection
    seen: list[tuple[float, list[str]]] = field(default_factory=list)
    """Milliseconds, and the tables of which many rows are read without an index."""

    def execute(self, statement: str, parameters: Any = None) -> Any:
        """Carry it out twice: once to see how, and, rolled back, without a trace."""
        with self.connection.transaction(force_rollback=True):
            row = self.connection.execute(
                f"explain (analyze, format json) {statement}", parameters
            ).fetchone()
        plan = next(iter((row or {}).values()))[0]
        self.seen.append((plan["Execution Time"], list(_whole_tables(plan["Plan"]))))
        return self.connection.execute(statement, parameters)

    def cursor(self) -> Any:
        """Of the connection; what it does is not seen."""
        return self.connection.cursor()


def _whole_tables(plan: dict[str, Any]) -> Sequence[str]:
    found = [plan["Relation Name"]] if plan["Node Type"] == "Seq Scan" and _rows(plan) > SMALL else []
    return [*found, *(table for part in plan.get("Plans", ()) for table in _whole_tables(part))]


def _rows(plan: dict[str, Any]) -> float:
    return float(plan["Actual Rows"]) + float(plan.get("Rows Removed by Filter", 0))


def run() -> None:
    """Print each query of the hot path with its time; fail if one reads a large table without an index."""
    with servers.server_folder() as folder, servers.postgres(folder) as server:
        database = server.create_database("plans")
        with Postgres(database, application="bench") as postgres:
            migrate(postgres)
            _filled(postgres)
            slow = [name for name, query in _queries().items() if not _told(postgres, name, query)]
    if slow:
        raise SystemExit(f"without an index: {', '.join(slow)}")


def _filled(postgres: Postgres) -> None:
    given = {
        "files": ROWS // A_DATA_FILE + 1,
        "in_file": A_DATA_FILE,
        "symbols": SYMBOLS,
        "rows": ROWS,
    }
    with postgres.transaction() as connection:
        for statement in filter(str.strip, _FILL.split(";")):
            connection.execute(statement, given if "%(" in statement else None)  # type: ignore[call-overload]
        assignments.beat(connection, "w", host="h", pid=1, concurrency=2)
        for number in range(1, BATCHES + 1):
            batches.request(connection, UUID(int=number), KLINES, None, traceparent=None)
            connection.execute(
                "insert into task (id, batch_id, kind, payload, parts, size, state) select gen_random_uuid(), %s,"
                " 'collection', %s, 256, 1000, case when n %% 10 = 0 then 'queued' else 'done' end"
                " from generate_series(1, %s) n",
                [UUID(int=number), Jsonb({}), TASKS],
            )
        connection.execute(
            "insert into staged_unit (id, table_name, replaces, content, state) select gen_random_uuid(),"
            " 'bronze/binance_klines', '{}', '{}', case when n > %s - 20 then 'staged' else 'committed' end"
            " from generate_series(1, %s) n",
            [ROWS // A_DATA_FILE, ROWS // A_DATA_FILE],
        )
    with postgres.transaction() as connection:
        connection.execute("analyze")


BATCH = UUID(int=1)
KLINES = Selection(venue="binance", market="spot", data_type="klines")
KEYS = [f"data/spot/daily/klines/S{number}USDT/1m/2020-01-01" for number in range(256)]
SERIES = [
    Series(venue="binance", market="spot", data_type="klines", symbol=f"S{number}USDT", interval="1m")
    for number in range(25)
]
Query = Callable[[Connection], object]


def _queries() -> dict[str, Query]:
    task = GroupTask.of([], VenueEndpoint(endpoint="http://127.0.0.1", bucket="b"), BATCH)
    return {
        "plan a thousand files": lambda at: ledger.current(at, "binance", KEYS * 4),
        "a worker looks up its group": lambda at: ledger.current(at, "binance", KEYS),
        "a worker claims a task": lambda at: assignments.claim(at, task.id, "w"),
        "the committer looks for what waits": staging.waiting_tables,
        "… and takes it": lambda at: staging.waiting(at, "bronze/binance_klines", most=500),
        "… proves the versions of a group": lambda at: ledger.current_versions(at, "binance", KEYS),
        "… and that a data file is replaced whole": lambda at: ledger.keys_in(at, 17),
        "… and moves its other rows": lambda at: ledger.move(at, {17: 18}),
        "series that are to be refined": lambda at: ledger.unrefined_series(at, KLINES),
        "… and their files": lambda at: ledger.unrefined_of(at, SERIES),
        "a worker claims a batch": lambda at: batches.claim(at, "w"),
        f"the progress of a batch of {TASKS} tasks": lambda at: batches.progress(at, BATCH),
        "tasks of silent workers": lambda at: assignments.redispatch_lapsed(
            at, BATCH, topic="t", traceparent=None
        ),
        "batches to be shown": lambda at: batches.unshown(at, most=100),
        "files for a rebuild": lambda at: ledger.selected(at, KLINES, after=KEYS[9], most=1000),
        "files in the order of landing": lambda at: ledger.in_landing_order(
            at, after=f"binance/{KEYS[9]}", most=5000
        ),
        "data files to be forgotten": lambda at: staging.ended_files(at, kept=timedelta(days=1)),
    }


def _told(postgres: Postgres, name: str, query: Query) -> bool:
    with postgres.transaction() as connection:
        explaining = Explaining(connection)
        query(cast("Connection", explaining))
    milliseconds = sum(took for took, _ in explaining.seen)
    whole = sorted({table for _, tables in explaining.seen for table in tables})
    how = f"reads all of {', '.join(whole)}" if whole else "by index"
    print(f"{name:<45} {milliseconds:>9.2f} ms  {how}", flush=True)
    return not whole
