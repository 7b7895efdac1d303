"""A database and the role that owns it, on a PostgreSQL server."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NotRequired, TypedDict, TypeVar

import psycopg
import pulumi
from marketlake.settings import Database, SslMode
from psycopg import sql
from pulumi.dynamic import Resource
from pydantic import Field, SecretStr

from components.providers.base import DRIFT, Inputs, Provider, Record, ResourceError
from components.providers.waiting import REFRESH_TIMEOUT_S, START_TIMEOUT_S, NotReady, wait_for

_CONNECT_S = 5
_UNTRUSTED = ("certificate verify failed", "does not match host name", "does not support SSL", "SSL error")
"""What libpq says of a server that is not who it should be, or that does not encrypt."""
_IDENTIFIER = r"^[a-z][a-z0-9_]{0,62}$"

Connection = psycopg.Connection[tuple[Any, ...]]
Result = TypeVar("Result")


class SqlDatabaseArgs(TypedDict):
    """Arguments of a database."""

    host: pulumi.Input[str]
    port: pulumi.Input[int]
    superuser: pulumi.Input[str]
    """The role that creates and drops."""
    superuser_password: pulumi.Input[str]
    sslmode: NotRequired[pulumi.Input[str]]
    """Optional: a :class:`marketlake.settings.SslMode`; ``prefer`` when omitted."""
    root_certificate: NotRequired[pulumi.Input[str | None]]
    """Optional: PEM text of the authorities of the server's certificate; those that the machine trusts when omitted."""
    name: pulumi.Input[str]
    """The database's name."""
    owner: pulumi.Input[str]
    """The role that owns it and is the only one to connect to it."""
    owner_password: pulumi.Input[str]


class SqlDatabaseRecord(Record):
    """What a database and its role are found, and dropped, by."""

    host: str
    port: int
    superuser: str
    superuser_password: str
    sslmode: SslMode = SslMode.PREFER
    root_certificate: str | None = None
    name: str
    owner: str


class SqlDatabaseInputs(SqlDatabaseRecord, Inputs):
    """The resolved :class:`SqlDatabaseArgs`."""

    name: str = Field(pattern=_IDENTIFIER)
    owner: str = Field(pattern=_IDENTIFIER)
    owner_password: str


class SqlDatabaseProvider(Provider[SqlDatabaseInputs, SqlDatabaseRecord]):
    """Databases with their roles, by SQL."""

    VERSION: ClassVar[str] = "1"
    model = SqlDatabaseInputs
    record = SqlDatabaseRecord
    identity = frozenset({"name", "owner"})

    def resource_id(self, declared: SqlDatabaseInputs) -> str:
        """The database's name."""
        return declared.name

    def apply(self, declared: SqlDatabaseInputs) -> Mapping[str, Any]:
        """Create or adopt the role and the database, set the role's password, close the database to all others."""
        role, name = sql.Identifier(declared.owner), sql.Identifier(declared.name)

        def bring(connection: Connection) -> None:
            if not _exists(connection, "pg_roles", "rolname", declared.owner):
                connection.execute(sql.SQL("CREATE ROLE {}").format(role))
            # The server is sent what it stores to check the password by, never the password: it may log statements.
            verifier = connection.pgconn.encrypt_password(
                declared.owner_password.encode(), declared.owner.encode(), b"scram-sha-256"
            )
            connection.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(verifier.decode()))
            )
            _join(connection, role)
            if not _exists(connection, "pg_database", "datname", declared.name):
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, role))
            connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, role))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))

        _ask(declared, bring, START_TIMEOUT_S)
        return {}

    def observe(self, recorded: SqlDatabaseRecord) -> Mapping[str, Any] | None:
        """None if there is no such database; that it belongs to another role is drift.

        The drift is not reported as another `owner`: another owner is declared for another database, and the old one is
        dropped.
        """

        def look(connection: Connection) -> Mapping[str, Any] | None:
            row = connection.execute(
                "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", (recorded.name,)
            ).fetchone()
            if row is None:
                return None
            return {} if row[0] == recorded.owner else {DRIFT: f"it belongs to the role {row[0]!r}"}

        return _ask(recorded, look, REFRESH_TIMEOUT_S)

    def remove(self, recorded: SqlDatabaseRecord) -> None:
        """Drop the database, whoever is connected to it, and the role."""

        def drop(connection: Connection) -> None:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(recorded.name))
            )
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(recorded.owner)))

        _ask(recorded, drop, START_TIMEOUT_S)


class SqlDatabase(Resource, module="marketlake", name="SqlDatabase"):
    """A database with its owner."""

    name: pulumi.Output[str]

    def __init__(self, name: str, args: SqlDatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the database `args["name"]` under the resource name `name`."""
        secret = pulumi.ResourceOptions(additional_secret_outputs=["superuser_password", "owner_password"])
        super().__init__(
            SqlDatabaseProvider(),
            name,
            {**args, "version": SqlDatabaseProvider.VERSION},
            pulumi.ResourceOptions.merge(opts, secret),
        )


def _join(connection: Connection, role: sql.Identifier) -> None:
    """Make the provisioning role a member of the role: only a superuser may grant without that."""
    is_superuser = "SELECT 1 FROM pg_roles WHERE rolname = current_user AND rolsuper"
    if connection.execute(is_superuser).fetchone() is None:
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))


def _exists(connection: Connection, catalogue: str, column: str, name: str) -> bool:
    query = sql.SQL("SELECT 1 FROM {} WHERE {} = %s").format(
        sql.Identifier(catalogue), sql.Identifier(column)
    )
    return connection.execute(query, (name,)).fetchone() is not None


def _connect(database: Database) -> Connection:
    with database.tls() as tls:
        return psycopg.connect(
            host=database.host,
            port=database.port,
            user=database.user,
            password=database.password.get_secret_value(),
            dbname=database.name,
            connect_timeout=_CONNECT_S,
            autocommit=True,
            **tls,
        )


def _ask(recorded: SqlDatabaseRecord, action: Callable[[Connection], Result], timeout_s: float) -> Result:
    """Run `action` as the superuser, each statement in a transaction of its own."""
    server = f"PostgreSQL at {recorded.host}:{recorded.port}"
    administered = Database(
        host=recorded.host,
        port=recorded.port,
        name="postgres",
        user=recorded.superuser,
        password=SecretStr(recorded.superuser_password),
        sslmode=recorded.sslmode,
        root_certificate=recorded.root_certificate,
    )

    def attempt() -> Result:
        try:
            connection = _connect(administered)
        except psycopg.OperationalError as error:
            text = str(error).strip()
            if "password authentication failed" in text:
                raise ResourceError(
                    f"{server} refuses the password of {recorded.superuser!r}. Another server answers there, or the "
                    "password was changed by hand: stop the service `database`, then `pulumi up --refresh` sets it."
                ) from None
            if any(sign in text for sign in _UNTRUSTED):
                raise ResourceError(
                    f"{server} is not trusted with sslmode {recorded.sslmode}: {text}. Give the certificate of its "
                    "authority as `database.external.rootCertificate` and the host by the name in its own "
                    "certificate, or choose another `database.external.sslmode`."
                ) from None
            raise NotReady(text) from None
        with connection:
            try:
                return action(connection)
            except psycopg.OperationalError as error:
                raise NotReady(str(error).strip()) from None
            except psycopg.Error as error:
                raise ResourceError(f"{server}, database {recorded.name!r}: {str(error).strip()}") from None

    return wait_for(attempt, server=server, timeout_s=timeout_s)
