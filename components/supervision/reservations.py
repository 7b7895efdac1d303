"""The ports that this user's stacks have reserved on this machine: a book for each stack, one lock for all of them.

A port is reserved before anybody listens on it, so that it is free proves nothing: another stack may have chosen it a
moment ago. Each stack's book lies in its folder. A folder of links, at a place that depends on no setting of a stack,
names the stacks that have one, and is itself the lock. A stack whose book is gone has no reservations: its link goes
with the next look.
"""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from components.supervision.files import OWN, write_private
from components.supervision.layout import StackFolder

Book = dict[str, dict[str, int]]
"""Numbers by port, by service."""
_BOOK = TypeAdapter(Book)


class ReservationError(Exception):
    """The reservations cannot be read or changed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Reservations:
    """What is reserved, as long as nobody else can change it."""

    own: Book
    """Of the stack that asked; changes are kept."""
    others: Mapping[int, Path]
    """Numbers of other stacks, with those stacks' folders."""


@contextmanager
def reservations(stack: StackFolder) -> Iterator[Reservations]:
    """Read what is reserved, and keep the changes to the stack's own book unless an exception ends the block.

    No other stack's reservations change meanwhile.

    Raises:
        ReservationError: the book is damaged, or the place of the lock belongs to another user.
    """
    with _locked_register() as register:
        book = _read(stack)
        before = json.dumps(book)
        yield Reservations(own=book, others=_numbers_of_others(register, stack))
        if not book:
            stack.reservations.unlink(missing_ok=True)
            _link(register, stack).unlink(missing_ok=True)
            return
        if json.dumps(book) != before:
            write_private(stack.reservations, json.dumps(book, indent=1, sort_keys=True))
        # Also without a change: the register may not have outlived a restart of the machine.
        with suppress(FileExistsError):
            _link(register, stack).symlink_to(stack.root)


def register_folder() -> Path:
    """The folder of links to the stacks that have reservations; it exists while there are any."""
    return Path(tempfile.gettempdir()) / f"marketlake-ports-{os.geteuid()}"


def _link(register: Path, stack: StackFolder) -> Path:
    return register / hashlib.sha256(str(stack.root).encode()).hexdigest()[:32]


def _numbers_of_others(register: Path, stack: StackFolder) -> dict[int, Path]:
    numbers: dict[int, Path] = {}
    for link in sorted(register.iterdir()):
        other = StackFolder(link.readlink())
        if other == stack:
            continue
        if not other.reservations.exists():
            link.unlink()
            continue
        with suppress(ReservationError):  # its own next `up` says so
            numbers |= {number: other.root for book in _read(other).values() for number in book.values()}
    return numbers


def _read(stack: StackFolder) -> Book:
    try:
        return _BOOK.validate_json(stack.reservations.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = "; ".join(str(error).splitlines()[:3])
        raise ReservationError(
            f"{stack.reservations} is damaged ({reason}). Remove it; `pulumi up --refresh` writes it anew."
        ) from None


@contextmanager
def _locked_register() -> Iterator[Path]:
    register = register_folder()
    while True:
        register.mkdir(mode=OWN, exist_ok=True)
        try:
            lock = os.open(register, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # its last user removed it just now
            continue
        try:
            _require_own(register, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_still(register, lock):
                continue
            try:
                yield register
            finally:
                with suppress(OSError):  # it is not empty
                    register.rmdir()
            return
        finally:
            os.close(lock)


def _require_own(register: Path, opened: int) -> None:
    status = os.fstat(opened)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ReservationError(
            f"{register}, where this user's stacks reserve their ports, belongs to another user or is open to others. "
            "Remove it, or name another folder for temporary files with TMPDIR."
        )


def _is_still(register: Path, opened: int) -> bool:
    """Whether the locked folder is the one that lies there: it may have been removed while the lock was awaited."""
    try:
        return os.path.samestat(register.stat(follow_symlinks=False), os.fstat(opened))
    except FileNotFoundError:
        return False
