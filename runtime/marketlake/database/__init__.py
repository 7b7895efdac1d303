"""PostgreSQL: connections whose failures have one name, and the versioned schema of the platform's state."""

from marketlake.database.migrations import SchemaError, migrate
from marketlake.database.postgres import Connection, DatabaseUnavailableError, Postgres

__all__ = ["Connection", "DatabaseUnavailableError", "Postgres", "SchemaError", "migrate"]
