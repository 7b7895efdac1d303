"""The stores that the ledger speaks of: what it says of files is worth nothing once these are gone, or others."""

from dataclasses import dataclass
from uuid import UUID

from obstore.store import ObjectStore as Bucket

from marketlake.errors import MarketlakeError
from marketlake.infrastructure.postgres import Connection, Postgres
from marketlake.infrastructure.storage.identity import identify, identity_of

LANDING, LAKE = "landing", "lake"


class StoreChangedError(MarketlakeError):
    """Landing or the lake is gone, or another one than the ledger speaks of."""

    code = "store-changed"


@dataclass(frozen=True, slots=True)
class Stores:
    """Landing and the lake."""

    landing: Bucket
    lake: Bucket

    def changed(self, postgres: Postgres) -> tuple[str, ...]:
        """Return which of :data:`LANDING` and :data:`LAKE` are not those that the ledger speaks of.

        Raises:
            StorageError: the store failed.
        """
        with postgres.transaction() as connection:
            known = _known(connection)
        return tuple(
            role for role, bucket in self._buckets() if role in known and identity_of(bucket) != known[role]
        )

    def require(self, postgres: Postgres) -> None:
        """Prove that both are those that the ledger speaks of; the first time, note which they are.

        Raises:
            StoreChangedError: one is not.
            UnconditionalStoreError: the store cannot be relied on.
            StorageError: it failed.
        """
        changed = self.changed(postgres)
        if LAKE in changed:
            raise StoreChangedError(
                "the lake is gone, or another one than the ledger speaks of: what it calls collected is not there. "
                "`marketlake lake rebuild` makes the lake anew from landing."
            )
        if LANDING in changed:
            raise StoreChangedError(
                "landing is gone, or another one than the ledger speaks of: the files that the lake was made from "
                "are not there. `marketlake lake accept-landing` takes note of it; what the lake holds stays, and "
                "cannot be rebuilt."
            )
        self.accept(postgres)

    def accept(self, postgres: Postgres, *roles: str) -> None:
        """Note which stores the ledger speaks of: these, and those of which nothing is noted yet."""
        with postgres.transaction() as connection:
            known = _known(connection)
            for role, bucket in self._buckets():
                if role in known and role not in roles:
                    continue
                connection.execute(
                    "insert into store_identity (role, identity) values (%s, %s)"
                    " on conflict (role) do update set identity = excluded.identity",
                    [role, identify(bucket)],
                )

    def _buckets(self) -> tuple[tuple[str, Bucket], ...]:
        return (LANDING, self.landing), (LAKE, self.lake)


def _known(connection: Connection) -> dict[str, UUID]:
    rows = connection.execute("select role, identity from store_identity").fetchall()
    return {row["role"]: row["identity"] for row in rows}
