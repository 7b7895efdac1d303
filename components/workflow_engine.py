"""The workflow engine: a Prefect server whose state lies in PostgreSQL."""

from marketlake.settings import Database, HealthKind

from components.service import Distribution, Health, Port, Resources, Service, Volume

USER = "marketlake"

QUIET_PREFECT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
}
"""What every Prefect process is told: nothing is reported to the vendor, logs are plain text."""


def database_url(database: Database) -> str:
    """Where the server keeps its state, in SQLAlchemy's notation. It holds the password."""
    return database.dsn.replace("postgresql://", "postgresql+asyncpg://", 1)


def workflow_engine_service(*, memory_mib: int = 512) -> Service:
    """A Prefect server in one process, with its web page.

    Secrets: ``database-url`` (``postgresql+asyncpg://…``) and ``auth`` (``user:password`` of its API).
    """
    return Service(
        name="workflow-engine",
        program=Distribution(name="prefect"),
        argv=("{bin:prefect}", "server", "start", "--host={bind}", "--port={port:api}"),
        ports={"api": Port(preferred=4200, scheme="http")},
        volumes={"home": Volume(size_mib=64)},
        environment={
            **QUIET_PREFECT,
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
        health=Health(kind=HealthKind.HTTP, port="api", path="/api/health", timeout_s=120),
        resources=Resources(memory_mib=memory_mib),
        console=("api", "/"),
    )
