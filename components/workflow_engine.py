"""The workflow engine: a Prefect server whose state lies in PostgreSQL."""

from typing import NotRequired, TypedDict

import pulumi
from marketlake import settings
from marketlake.settings import HealthKind

from components.component import Component, known_after
from components.providers.secret import GeneratedSecret
from components.service import Distribution, ExternalServer, File, Health, Port, Resources, Service, Volume
from components.target import ExternalServerArgs, TargetArgs, external_servers
from components.targets import target_of

USER = "marketlake"
_STARTED_WITHIN_S = 300
"""Its first start migrates the database and compiles all of Prefect: some 40 s of processor time, of which a busy
machine gives it a fraction."""
_ROOTS = "database-root.crt"
_TLS = "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_TLS"

QUIET_PREFECT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
}
"""Variables of every Prefect process: no analytics for the vendor, plain logs."""


def database_url(database: settings.Database) -> str:
    """Return the database URL of the server's state, in SQLAlchemy's notation. It holds the password.

    Where its server's certificate is verified, :func:`workflow_engine_service` says so.
    """
    address, _, query = database.dsn.replace("postgresql://", "postgresql+asyncpg://", 1).partition("?")
    return (
        f"{address}?{query.replace('sslmode=', 'ssl=')}"
        if query and not database.sslmode.verifies
        else address
    )


def _verification(sslmode: settings.SslMode, root_certificate: str | None) -> dict[str, str]:
    """Return Prefect's settings for the certificate of its database's server."""
    if not sslmode.verifies:
        return {}
    verified = {
        f"{_TLS}_ENABLED": "true",
        f"{_TLS}_CHECK_HOSTNAME": str(sslmode is settings.SslMode.VERIFY_FULL).lower(),
    }
    return verified if root_certificate is None else {**verified, f"{_TLS}_CA_FILE": f"{{file:{_ROOTS}}}"}


def workflow_engine_service(
    *,
    memory_mib: int = 512,
    cpu_millis: int = 100,
    calls_external: tuple[ExternalServer, ...] = (),
    sslmode: settings.SslMode = settings.SslMode.PREFER,
    root_certificate: str | None = None,
) -> Service:
    """A Prefect server in one process, with its web page.

    Args:
        memory_mib: what it is given.
        cpu_millis: thousandths of a core that are set aside for it.
        calls_external: its database's server, where that is external.
        sslmode: what it verifies of its database's server.
        root_certificate: PEM text of the authorities of that server's certificate; those that the machine trusts when
            None.

    Secrets: ``database-url`` (``postgresql+asyncpg://…``) and ``auth`` (``user:password`` of its API).
    """
    return Service(
        name="workflow-engine",
        program=Distribution(name="prefect"),
        argv=("{bin:prefect}", "server", "start", "--host={bind}", "--port={port:api}"),
        ports={"api": Port(preferred=4200, scheme="http")},
        volumes={"home": Volume(size_mib=64, scratch=True)},
        files={} if root_certificate is None else {_ROOTS: File(text=root_certificate)},
        environment={
            **QUIET_PREFECT,
            **_verification(sslmode, root_certificate),
            "PREFECT_HOME": "{volume:home}",
            "PREFECT_UI_API_URL": "http://{address:api}/api",
            "PREFECT_UI_STATIC_DIRECTORY": "{volume:home}/ui",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "5",
            "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "7d",
        },
        secret_environment={
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": "{secret:database-url}",
            "PREFECT_SERVER_API_AUTH_STRING": "{secret:auth}",
            "PREFECT_API_AUTH_STRING": "{secret:auth}",
        },
        health=Health(kind=HealthKind.HTTP, port="api", path="/api/health", timeout_s=_STARTED_WITHIN_S),
        resources=Resources(memory_mib=memory_mib, cpu_millis=cpu_millis),
        calls=("database",),
        calls_external=calls_external,
        console=("api", "/"),
    )


class StateDatabaseArgs(TypedDict):
    """The PostgreSQL database of a workflow engine's state."""

    host: pulumi.Input[str]
    """The server's name or address."""
    port: pulumi.Input[int]
    """Where it speaks PostgreSQL's protocol."""
    name: pulumi.Input[str]
    """Of the database."""
    user: pulumi.Input[str]
    """The role that owns it."""
    password: pulumi.Input[str]
    """A secret."""
    sslmode: NotRequired[str]
    """Optional: whether connections are encrypted, and what is verified, in libpq's words; ``prefer`` when omitted."""
    root_certificate: NotRequired[str | None]
    """Optional: PEM text of the authorities of its server's certificate; those that the machine trusts when omitted."""
    external: NotRequired[ExternalServerArgs]
    """Optional: where its server is, if it is external; a service of the platform when omitted."""


class WorkflowEngineArgs(TypedDict):
    """Arguments of the workflow engine."""

    target: TargetArgs
    """Where it runs."""
    database: StateDatabaseArgs
    """Where it keeps its state."""
    memory_mib: NotRequired[int]
    """Optional: 512 when omitted."""
    cpu_millis: NotRequired[int]
    """Optional: thousandths of a core that are set aside for it, where the target can; 100 when omitted."""


class WorkflowEngine(Component):
    """A Prefect server."""

    api_url: pulumi.Output[str]
    """Ends in ``/api``."""
    ui_url: pulumi.Output[str]
    """Its web page."""
    auth_string: pulumi.Output[str]
    """A secret: ``user:password`` for HTTP basic authentication."""
    service: pulumi.Output[dict[str, str]]
    """How `marketlake status` finds it."""

    def __init__(
        self, name: str, args: WorkflowEngineArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the server."""
        super().__init__(name, opts)
        password = GeneratedSecret(f"{name}-password", opts=self._child())
        auth = password.value.apply(lambda text: f"{USER}:{text}")
        state = args["database"]
        sslmode = settings.SslMode(state.get("sslmode", settings.SslMode.PREFER))
        database = pulumi.Output.all(
            host=state["host"],
            port=state["port"],
            name=state["name"],
            user=state["user"],
            password=state["password"],
            sslmode=sslmode,
        )
        url = database.apply(lambda values: database_url(settings.Database(**values)))
        deployed = target_of(args["target"]).deploy(
            name,
            workflow_engine_service(
                memory_mib=args.get("memory_mib", 512),
                cpu_millis=args.get("cpu_millis", 100),
                calls_external=external_servers([state["external"]] if "external" in state else []),
                sslmode=sslmode,
                root_certificate=state.get("root_certificate"),
            ),
            inputs={},
            secrets={"database-url": url, "auth": auth},
            opts=self._child(),
        )
        self.ui_url = deployed.url("api")
        self.api_url = self.ui_url.apply(lambda base: f"{base}/api")
        self.auth_string = known_after(auth, deployed.resource)
        self.service = deployed.info
        self.register_outputs(
            {
                "api_url": self.api_url,
                "ui_url": self.ui_url,
                "auth_string": self.auth_string,
                "service": self.service,
            }
        )
