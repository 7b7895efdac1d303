"""Real servers for tests: the very Services that `pulumi up` deploys, as child processes on free ports."""

import itertools
import os
import random
import secrets
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from marketlake.settings import Database, EventBus, ObjectStore, Telemetry, WorkflowEngine

from components import database, event_bus, object_store, workflow_engine
from components.observability import collector, stores
from components.providers.sql_database import SqlDatabaseInputs, SqlDatabaseProvider
from components.service import Service
from components.supervision.accounts import as_account
from components.supervision.installation import (
    account_of,
    environment_of,
    inherited_environment,
    install,
    run_setup,
)
from components.supervision.layout import StackFolder
from components.supervision.program import HostProgram
from components.supervision.readiness import answers, await_ready, last_lines
from components.supervision.resolution import addresses_of, resolve
from components.supervision.sockets import LOOPBACK, is_free

_FIRST_PORT, _PORTS_EACH = 20_000, 1_000


@dataclass(slots=True)
class Server:
    """A running service, and the means to hurt it."""

    program: HostProgram
    ports: Mapping[str, int]
    process: subprocess.Popen[bytes]

    def address(self, port: str) -> str:
        return addresses_of(self.ports)[port]

    @property
    def log(self) -> Path:
        return self.program.stack.log(self.program.name)

    def family(self) -> list[psutil.Process]:
        """Its process, and then all that this one has started."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def kill(self) -> None:
        """End it as a crash does, with all that it started."""
        family = self.family()
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(family[1:], timeout=10)

    def start(self) -> None:
        """Start it (again) on its ports and its data, and wait until it answers."""
        self.process = _launch(self.program)
        _await(self.program, self.process)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.Signals[f"SIG{self.program.stop_signal}"])
            try:
                self.process.wait(self.program.stop_grace_s)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def run(
    service: Service,
    folder: Path,
    *,
    inputs: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run one service with its data in `folder`, a short path that anybody may pass through."""
    ports: dict[str, int] = {}
    for name in service.ports:
        ports[name] = next(_ports)
    program = resolve(service, folder, ports=ports, inputs=inputs or {}, secrets=secrets or {})
    install(program)
    run_setup(program)
    server = Server(program=program, ports=ports, process=_launch(program))
    try:
        _await(program, server.process)
        yield server
    finally:
        server.stop()


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for servers: pytest's own are closed to the account that PostgreSQL drops to."""
    folder = Path(tempfile.mkdtemp(prefix="marketlake-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Postgres:
    """A PostgreSQL server and the password of its superuser."""

    server: Server
    superuser_password: str

    def create_database(self, name: str) -> Database:
        """A database and a role of the same name, made as `pulumi up` makes them."""
        password, port = token(), self.server.ports["sql"]
        SqlDatabaseProvider().apply(
            SqlDatabaseInputs(
                version="test",
                host=LOOPBACK,
                port=port,
                superuser=database.SUPERUSER,
                superuser_password=self.superuser_password,
                name=name,
                owner=name,
                owner_password=password,
            )
        )
        return Database(host=LOOPBACK, port=port, name=name, user=name, password=password)


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL server with nothing in it."""
    password = token()
    with run(database.database_service(), folder, secrets={"superuser-password": password}) as server:
        yield Postgres(server, password)


@contextmanager
def minio(folder: Path) -> Iterator[tuple[Server, ObjectStore]]:
    """A MinIO server without buckets."""
    password = token()
    with run(object_store.object_store_service(), folder, secrets={"root-password": password}) as server:
        yield (
            server,
            ObjectStore(
                endpoint=f"http://{server.address('api')}",
                region=object_store.REGION,
                access_key_id=object_store.ROOT_USER,
                secret_access_key=password,
            ),
        )


@contextmanager
def kafka(folder: Path) -> Iterator[tuple[Server, EventBus]]:
    """A Kafka broker without topics."""
    client = token()
    with run(
        event_bus.event_bus_service(),
        folder,
        inputs={"cluster-id": event_bus.cluster_id(uuid.uuid4().hex)},
        secrets={"broker-password": token(), "client-password": client},
    ) as server:
        yield (
            server,
            EventBus(
                bootstrap_servers=server.address("client"),
                security_protocol=event_bus.SECURITY_PROTOCOL,
                sasl_mechanism=event_bus.SASL_MECHANISM,
                username=event_bus.CLIENT_USER,
                password=client,
            ),
        )


@contextmanager
def prefect(folder: Path, state: Database) -> Iterator[tuple[Server, WorkflowEngine]]:
    """A Prefect server on the database `state`; no work pool, no deployment."""
    auth = f"{workflow_engine.USER}:{token()}"
    secrets = {"database-url": workflow_engine.database_url(state), "auth": auth}
    with run(workflow_engine.workflow_engine_service(), folder, secrets=secrets) as server:
        url = f"http://{server.address('api')}"
        yield server, WorkflowEngine(api_url=f"{url}/api", ui_url=url, auth_string=auth)


@contextmanager
def telemetry(folder: Path) -> Iterator[tuple[Mapping[str, Server], Telemetry]]:
    """The three stores and the collector before them."""
    password = token()
    header = stores.basic_authorization(password)
    with ExitStack() as running:
        metrics = running.enter_context(
            run(stores.metrics_store_service(), folder, secrets={"password": password})
        )
        logs = running.enter_context(run(stores.log_store_service(), folder, secrets={"password": password}))
        traces = running.enter_context(run(stores.trace_store_service(), folder))
        gate = running.enter_context(
            run(
                collector.telemetry_collector_service(),
                folder,
                inputs={
                    "metrics-url": f"http://{metrics.address('http')}",
                    "logs-url": f"http://{logs.address('http')}",
                    "traces-url": f"http://{traces.address('otlp')}",
                },
                secrets={"metrics-authorization": header, "logs-authorization": header},
            )
        )
        servers = {server.program.name: server for server in (metrics, logs, traces, gate)}
        yield (
            servers,
            Telemetry(
                otlp_endpoint=f"http://{gate.address('otlp')}",
                metrics_url=f"http://{metrics.address('http')}",
                logs_url=f"http://{logs.address('http')}",
                traces_url=f"http://{traces.address('http')}",
                username=stores.USER,
                password=password,
            ),
        )


def token() -> str:
    return secrets.token_urlsafe(18)


def _free_ports() -> Iterator[int]:
    """Ports that nobody listens on, below those of outgoing connections: a server may end and start again on its own.

    Each worker of pytest-xdist draws from a range of its own, so that none takes what another has yet to bind.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST_PORT + worker * _PORTS_EACH
    numbers = [*range(first, first + _PORTS_EACH)]
    begin = random.randrange(_PORTS_EACH)  # noqa: S311 - another run on this machine begins elsewhere
    yield from filter(is_free, itertools.cycle(numbers[begin:] + numbers[:begin]))


_ports = _free_ports()


def _launch(program: HostProgram) -> subprocess.Popen[bytes]:
    with program.stack.log(program.name).open("ab") as log:
        return subprocess.Popen(
            [*as_account(account_of(program)), "/bin/sh", "run"],
            cwd=program.stack.service(program.name),
            env=inherited_environment() | _measured(program) | environment_of(program),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _measured(program: HostProgram) -> dict[str, str]:
    """What makes a worker, which runs our own code, tell its test coverage if that is measured."""
    if not program.name.endswith("-worker"):
        return {}
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


def _await(program: HostProgram, process: subprocess.Popen[bytes]) -> None:
    def failed() -> str | None:
        if process.poll() is None:
            return None
        log = StackFolder(Path(program.folder)).log(program.name)
        end = last_lines(log, hiding=program.hidden)
        return f"it ended with status {process.returncode}. Its log ends:\n{end}"

    await_ready(
        lambda: answers(program.health, program.health_target),
        failed,
        timeout_s=program.health_timeout_s,
        subject=program.name,
    )
