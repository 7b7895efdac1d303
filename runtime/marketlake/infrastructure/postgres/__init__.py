"""PostgreSQL: connections whose failures have one name, and the versioned schema of the platform's state."""

from marketlake.infrastructure.postgres.connections import Connection, DatabaseUnavailableError, Postgres
from marketlake.infrastructure.postgres.migrations import SchemaError, migrate

__all__ = ["Connection", "DatabaseUnavailableError", "Postgres", "SchemaError", "migrate"]
