"""The relational database: one PostgreSQL server, with a database and a role of its own for each user of it."""

from typing import NotRequired, TypedDict

import pulumi
from marketlake.settings import HealthKind

from components.component import Component, known_after
from components.providers.secret import GeneratedSecret
from components.providers.sql_database import SqlDatabase
from components.service import Command, File, Health, Importance, Port, Resources, Service, Stop, Tool, Volume
from components.target import TargetArgs
from components.targets import target_of

SUPERUSER = "postgres"
"""The role that owns the server; only provisioning uses it."""

_CONFIGURATION = """\
hba_file = '{file:pg_hba.conf}'
listen_addresses = '{bind}'
port = {port:sql}
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = '{memory:25}MB'
max_wal_size = '512MB'
io_method = 'sync'
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = 'warning'
log_checkpoints = off
log_line_prefix = '%m [%p] %q%u@%d '
"""

_AUTHENTICATION = "host all all all scram-sha-256\n"


def database_service(*, memory_mib: int = 256, volume_mib: int = 1024) -> Service:
    """PostgreSQL, reachable by TCP and SCRAM only.

    Secrets: ``superuser-password``. It is set anew before every start, so data that outlived the stack's secrets can
    be used with new ones.
    """
    return Service(
        name="database",
        program=Tool(name="postgresql"),
        argv=("{bin:postgres}", "-c", "config_file={file:postgresql.conf}"),
        ports={"sql": Port(preferred=5432)},
        volumes={"data": Volume(size_mib=volume_mib)},
        files={
            "postgresql.conf": File(text=_CONFIGURATION),
            "pg_hba.conf": File(text=_AUTHENTICATION),
            "superuser.sql": File(
                text=f"ALTER ROLE {SUPERUSER} PASSWORD '{{secret:superuser-password}}';\n", secret=True
            ),
        },
        environment={"PGDATA": "{volume:data}/cluster", "LC_ALL": "C.UTF-8"},
        setup=(
            Command(
                name="create the cluster",
                argv=(
                    "{bin:initdb}",
                    "--pgdata={volume:data}/cluster.part",
                    f"--username={SUPERUSER}",
                    "--auth=reject",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--no-instructions",
                ),
                creates="{volume:data}/cluster",
                staged=True,
            ),
            Command(
                name="set the superuser's password",
                argv=("{bin:postgres}", "--single", "-c", "config_file={file:postgresql.conf}", "template1"),
                stdin="superuser.sql",
            ),
        ),
        health=Health(kind=HealthKind.TCP, port="sql"),
        resources=Resources(memory_mib=memory_mib, cpu_millis=100),
        importance=Importance.DATA,
        stop=Stop(signal="INT", grace_s=20),  # "fast": roll back what runs, write a checkpoint, end
        refuses_root=True,
    )


class DatabaseArgs(TypedDict):
    """What is declared of the database server."""

    target: TargetArgs
    """Where it runs."""
    databases: list[str]
    """Names of the databases to have in it; each is owned by a role of the same name."""
    memory_mib: NotRequired[int]
    """Optional: 256 when omitted; a quarter becomes shared buffers."""
    volume_mib: NotRequired[int]
    """Optional: room that has to be free at first; 1024 when omitted."""


class Database(Component):
    """A PostgreSQL server with databases in it."""

    host: pulumi.Output[str]
    port: pulumi.Output[int]
    passwords: pulumi.Output[dict[str, str]]
    """A secret: the owner's password, by database. Known once the database exists."""
    service: pulumi.Output[dict[str, str]]
    """How `marketlake status` finds it."""

    def __init__(self, name: str, args: DatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the server and its databases."""
        super().__init__(name, opts)
        superuser = GeneratedSecret(f"{name}-superuser-password", opts=self._child())
        deployed = target_of(args["target"]).deploy(
            name,
            database_service(memory_mib=args.get("memory_mib", 256), volume_mib=args.get("volume_mib", 1024)),
            inputs={},
            secrets={"superuser-password": superuser.value},
            opts=self._child(),
        )
        address = deployed.address("sql")
        self.host = address.apply(lambda text: text.rpartition(":")[0])
        self.port = address.apply(lambda text: int(text.rpartition(":")[2]))
        passwords: dict[str, pulumi.Output[str]] = {}
        for database in args["databases"]:
            password = GeneratedSecret(f"{name}-{database}-password", opts=self._child())
            declared = SqlDatabase(
                f"{name}-{database}",
                {
                    "host": self.host,
                    "port": self.port,
                    "superuser": SUPERUSER,
                    "superuser_password": superuser.value,
                    "name": database,
                    "owner": database,
                    "owner_password": password.value,
                },
                self._child(deployed.resource, inside=deployed.resource),
            )
            passwords[database] = known_after(password.value, declared)
        self.passwords = pulumi.Output.secret(pulumi.Output.all(**passwords))
        self.service = deployed.info
        self.register_outputs(
            {"host": self.host, "port": self.port, "passwords": self.passwords, "service": self.service}
        )
