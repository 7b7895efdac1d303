"""The unprivileged account of programs that refuse to run as root."""

import os
import pwd
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

CANDIDATES = ("postgres", "nobody")


class AccountError(Exception):
    """No account can run the service; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user account that owns files and runs processes."""

    name: str
    uid: int
    gid: int


def unprivileged() -> Account | None:
    """Return the account to drop to: None when this process is not root and everything runs as its own user.

    Raises:
        AccountError: this is root, and the machine has none of the accounts that could be used.
    """
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise AccountError(
        f"PostgreSQL refuses to run as root, and there is no account {' or '.join(CANDIDATES)} to drop to. "
        "Run as an ordinary user, or create one: useradd --system postgres"
    )


def as_account(account: Account | None) -> tuple[str, ...]:
    """Return the prefix of a command line that runs as `account`; empty for this user."""
    if account is None:
        return ()
    script = Path(__file__).with_name("dropping.py")
    return (sys.executable, "-I", "-S", str(script), str(account.uid), str(account.gid))


def require_passage(folder: Path, account: Account) -> None:
    """Raise if `account` cannot reach `folder`.

    Raises:
        AccountError: a folder on the way is closed to it. No permission of a folder that is not the stack's own is
            ever changed.
    """
    for place in reversed(folder.resolve().parents):
        status = place.stat()
        passable = (
            status.st_mode & stat.S_IXOTH
            or (status.st_uid == account.uid and status.st_mode & stat.S_IXUSR)
            or (status.st_gid == account.gid and status.st_mode & stat.S_IXGRP)
        )
        if not passable:
            raise AccountError(
                f"{folder} lies below {place}, which the account {account.name!r} cannot enter, and PostgreSQL "
                "refuses to run as root. Name another place with MARKETLAKE_HOME (default for root: "
                "/var/lib/marketlake), or run as an ordinary user."
            )
