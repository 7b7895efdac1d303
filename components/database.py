"""The relational database: one PostgreSQL server, with a database and a role of its own for each user of it."""

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import pulumi
from marketlake.settings import HealthKind, SslMode

from components.component import Component, known_after
from components.external import external_service
from components.providers.secret import GeneratedSecret
from components.providers.sql_database import SqlDatabase
from components.service import Command, File, Health, Importance, Port, Resources, Service, Stop, Tool, Volume
from components.target import TargetArgs
from components.targets import target_of

SERVICE = "database"
_PORT = 5432
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


def database_service(
    *, memory_mib: int = 256, volume_mib: int = 1024, storage_class: str | None = None, cpu_millis: int = 100
) -> Service:
    """PostgreSQL, reachable by TCP and SCRAM only.

    Secrets: ``superuser-password``. It is set anew before every start, so data that outlived the stack's secrets can
    be used with new ones.
    """
    return Service(
        name=SERVICE,
        program=Tool(name="postgresql"),
        argv=("{bin:postgres}", "-c", "config_file={file:postgresql.conf}"),
        ports={"sql": Port(preferred=_PORT)},
        volumes={
            "data": Volume(
                size_mib=volume_mib,
                backup="none: the ledger is rebuilt from the landing bucket, the engine's history is not",
                storage_class=storage_class,
            )
        },
        files={
            "postgresql.conf": File(text=_CONFIGURATION),
            "pg_hba.conf": File(text=_AUTHENTICATION),
            "superuser.sql": File(
                text=f"ALTER ROLE {SUPERUSER} PASSWORD '{{secret:superuser-password}}';\n", secret=True
            ),
        },
        environment={"PGDATA": "{volume:data}/cluster", "LC_ALL": "C"},
        setup=(
            Command(
                name="create the cluster",
                argv=(
                    "{bin:initdb}",
                    "--pgdata={volume:data}/cluster.part",
                    f"--username={SUPERUSER}",
                    "--auth=reject",
                    "--encoding=UTF8",
                    # The server's own C.UTF-8 sorts alike everywhere; the system's is not in every image.
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
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
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        importance=Importance.DATA,
        stop=Stop(signal="INT", grace_s=20),  # "fast": roll back what runs, write a checkpoint, end
        refuses_root=True,
    )


class ExternalDatabaseArgs(TypedDict):
    """An external PostgreSQL server."""

    host: pulumi.Input[str]
    """Its name or address."""
    port: NotRequired[pulumi.Input[int]]
    """Optional: 5432 when omitted."""
    superuser: pulumi.Input[str]
    """A role that may create databases and roles."""
    password: pulumi.Input[str]
    """A secret: that role's."""
    sslmode: NotRequired[pulumi.Input[str]]
    """Optional: ``disable``, ``require``, ``verify-ca`` or ``verify-full``; the last when omitted."""
    root_certificate: NotRequired[pulumi.Input[str]]
    """Optional: PEM text of the authorities that its certificate comes from; those that the machine trusts when
    omitted."""


class DatabaseArgs(TypedDict):
    """Arguments of the database server."""

    target: TargetArgs
    """Where it runs."""
    databases: list[str]
    """Names of the databases to have in it; each is owned by a role of the same name."""
    memory_mib: NotRequired[int]
    """Optional: 256 when omitted; a quarter becomes shared buffers."""
    volume_mib: NotRequired[int]
    """Optional: room that has to be free at first; 1024 when omitted."""
    storage_class: NotRequired[str]
    """Optional: of its volume, where the target offers several; the usual one when omitted."""
    cpu_millis: NotRequired[int]
    """Optional: thousandths of a core that are set aside for it, where the target can; 100 when omitted."""
    external: NotRequired[ExternalDatabaseArgs]
    """Optional: a server to use instead of one of our own. The databases are adopted there, or created, and stay there
    when the stack is destroyed."""


class Database(Component):
    """A PostgreSQL server with databases in it."""

    host: pulumi.Output[str]
    """The server's name or address."""
    port: pulumi.Output[int]
    """Where it speaks PostgreSQL's protocol."""
    sslmode: pulumi.Output[str]
    """Whether connections are encrypted, and what is verified; in libpq's words."""
    root_certificate: pulumi.Output[str | None]
    """PEM text of the authorities that the server's certificate comes from; None: those that the machine trusts."""
    passwords: pulumi.Output[dict[str, str]]
    """A secret: the owner's password, by database. Known once the database exists."""
    service: pulumi.Output[dict[str, str]]
    """How `marketlake status` finds it."""

    def __init__(self, name: str, args: DatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the server and its databases."""
        super().__init__(name, opts)
        server = self._external(args["external"]) if "external" in args else self._own(name, args)
        self.host, self.port, self.service = server.host, server.port, server.service
        self.sslmode, self.root_certificate = server.sslmode, server.root_certificate
        passwords: dict[str, pulumi.Output[str]] = {}
        for database in args["databases"]:
            password = GeneratedSecret(f"{name}-{database}-password", opts=self._child())
            declared = SqlDatabase(
                f"{name}-{database}",
                {
                    "host": self.host,
                    "port": self.port,
                    "superuser": server.superuser,
                    "superuser_password": server.password,
                    "sslmode": self.sslmode,
                    "root_certificate": self.root_certificate,
                    "name": database,
                    "owner": database,
                    "owner_password": password.value,
                },
                self._child(retained=True)
                if server.resource is None
                else self._child(server.resource, inside=server.resource),
            )
            passwords[database] = known_after(password.value, declared)
        self.passwords = pulumi.Output.secret(pulumi.Output.all(**passwords))
        self.register_outputs(
            {
                "host": self.host,
                "port": self.port,
                "sslmode": self.sslmode,
                "root_certificate": self.root_certificate,
                "passwords": self.passwords,
                "service": self.service,
            }
        )

    def _own(self, name: str, args: DatabaseArgs) -> "_Server":
        superuser = GeneratedSecret(f"{name}-superuser-password", opts=self._child())
        deployed = target_of(args["target"]).deploy(
            name,
            database_service(
                memory_mib=args.get("memory_mib", 256),
                volume_mib=args.get("volume_mib", 1024),
                storage_class=args.get("storage_class"),
                cpu_millis=args.get("cpu_millis", 100),
            ),
            inputs={},
            secrets={"superuser-password": superuser.value},
            opts=self._child(),
        )
        address = deployed.address("sql")
        return _Server(
            host=address.apply(lambda text: text.rpartition(":")[0]),
            port=address.apply(lambda text: int(text.rpartition(":")[2])),
            superuser=SUPERUSER,
            password=superuser.value,
            sslmode=pulumi.Output.from_input(SslMode.PREFER.value),
            root_certificate=pulumi.Output.from_input(None),
            service=deployed.info,
            resource=deployed.resource,
        )

    def _external(self, args: ExternalDatabaseArgs) -> "_Server":
        host = pulumi.Output.from_input(args["host"])
        port = pulumi.Output.from_input(args.get("port", _PORT)).apply(int)
        address = pulumi.Output.all(host, port).apply(lambda known: f"{known[0]}:{known[1]}")
        return _Server(
            host=host,
            port=port,
            superuser=args["superuser"],
            password=pulumi.Output.secret(args["password"]),
            sslmode=pulumi.Output.from_input(args.get("sslmode", SslMode.VERIFY_FULL.value)),
            root_certificate=pulumi.Output.from_input(args.get("root_certificate")),
            service=external_service(SERVICE, address=address, target=address),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """The server, the platform's own or an external one."""

    host: pulumi.Output[str]
    port: pulumi.Output[int]
    superuser: pulumi.Input[str]
    password: pulumi.Output[str]
    sslmode: pulumi.Output[str]
    root_certificate: pulumi.Output[str | None]
    service: pulumi.Output[dict[str, Any]]
    resource: pulumi.Resource | None = None
    """What has to be there before it is asked; None for one that was there before."""
