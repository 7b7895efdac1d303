"""The ports of one service on this machine: the usual numbers, or free ones where those are taken."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

import psutil
import pulumi
from pulumi.dynamic import Resource
from pydantic import Field

from components.providers.base import Inputs, Provider, ResourceError, warn
from components.supervision.files import write_private
from components.supervision.installation import prepare_stack_folder
from components.supervision.layout import STACK_MARK, StackFolder
from components.supervision.sockets import description, holder, is_free, next_free

Book = dict[str, dict[str, int]]
"""Numbers by port, by service."""


class PortsArgs(TypedDict):
    """Arguments of a service's ports."""

    folder: pulumi.Input[str]
    """The stack's folder."""
    service: pulumi.Input[str]
    preferred: pulumi.Input[Mapping[str, pulumi.Input[int]]]
    """The usual number of each port."""
    pinned: NotRequired[pulumi.Input[Mapping[str, pulumi.Input[int]]]]
    """Optional: ports that must have this number and no other."""


class PortsInputs(Inputs):
    """The resolved :class:`PortsArgs`."""

    folder: str
    service: str
    preferred: dict[str, int]
    pinned: dict[str, int] = Field(default_factory=dict)


class PortsProvider(Provider[PortsInputs]):
    """Reservations in a book in the stack's folder, so that services that start at once get different numbers.

    A number once given stays, over restarts and further ups, even if its usual one becomes free meanwhile. Only
    when another program has taken it while the service was down, a new one is given.
    """

    VERSION: ClassVar[str] = "1"
    model = PortsInputs
    identity = frozenset({"folder", "service"})

    def resource_id(self, declared: PortsInputs) -> str:
        """The service's name."""
        return declared.service

    def apply(self, declared: PortsInputs) -> Mapping[str, Any]:
        """Give each port its number.

        Raises:
            ResourceError: another process holds a pinned one.
        """
        with _book(declared) as book:
            others = frozenset(
                number
                for service, numbers in book.items()
                if service != declared.service
                for number in numbers.values()
            )
            before = book.get(declared.service, {})
            numbers: dict[str, int] = {}
            for port, usual in declared.preferred.items():
                taken = others | frozenset(numbers.values())
                if port in declared.pinned:
                    numbers[port] = _pinned(declared, port, taken)
                elif port in before and before[port] not in taken and _ours_or_free(declared, before[port]):
                    numbers[port] = before[port]
                else:
                    numbers[port] = _free(declared, port, usual, taken | set(declared.pinned.values()))
            book[declared.service] = numbers
        return {"numbers": numbers}

    def observe(self, declared: PortsInputs) -> Mapping[str, Any] | None:
        """Return the reserved numbers; None when there are none, or when another process has taken one meanwhile."""
        numbers = _read(StackFolder(Path(declared.folder))).get(declared.service)
        if numbers is None or not all(_ours_or_free(declared, number) for number in numbers.values()):
            return None
        return {"numbers": numbers}

    def remove(self, declared: PortsInputs) -> None:
        """Release the numbers."""
        if StackFolder(Path(declared.folder)).reservations.exists():
            with _book(declared) as book:
                book.pop(declared.service, None)


class Ports(Resource, module="marketlake", name="Ports"):
    """The ports of one service."""

    numbers: pulumi.Output[Mapping[str, int]]

    def __init__(self, name: str, args: PortsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the ports of `args["service"]` under the resource name `name`."""
        super().__init__(
            PortsProvider(), name, {**args, "numbers": None, "version": PortsProvider.VERSION}, opts
        )


def _pinned(declared: PortsInputs, port: str, taken: frozenset[int]) -> int:
    number = declared.pinned[port]
    what = f"Port {number}, which the settings name for {declared.service} ({port})"
    if number in taken:
        raise ResourceError(
            f"{what}, belongs to another service of this stack. Name another in the settings, or none."
        )
    if not _ours_or_free(declared, number):
        raise ResourceError(
            f"{what}, is taken by {description(holder(number))}. End that, name another port in the settings, "
            "or none: then a free one is chosen."
        )
    return number


def _free(declared: PortsInputs, port: str, usual: int, taken: frozenset[int]) -> int:
    if usual not in taken and is_free(usual):
        return usual
    number = next_free(usual, taken)
    reason = "another service of this stack" if usual in taken else description(holder(usual))
    warn(f"{declared.service}: port {usual} ({port}) is taken by {reason}; {number} is used instead.")
    return number


def _ours_or_free(declared: PortsInputs, number: int) -> bool:
    """Whether nobody listens on it but, perhaps, a process of this stack."""
    if is_free(number):
        return True
    process = holder(number)
    try:
        return process is not None and process.environ().get(STACK_MARK) == declared.folder
    except psutil.Error:
        return False


def _read(stack: StackFolder) -> Book:
    try:
        book: Book = json.loads(stack.reservations.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ResourceError(
            f"{stack.reservations} is damaged ({error}). Remove it; `pulumi up --refresh` writes it anew."
        ) from None
    return book


@contextmanager
def _book(declared: PortsInputs) -> Iterator[Book]:
    """The stack's book, for changing: nobody else reads or writes it meanwhile."""
    stack = StackFolder(Path(declared.folder))
    prepare_stack_folder(stack)
    with os.fdopen(os.open(stack.supervisor / "ports.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        book = _read(stack)
        yield book
        if book:
            write_private(stack.reservations, json.dumps(book, indent=1, sort_keys=True))
        else:
            stack.reservations.unlink(missing_ok=True)
