"""The ports of one service on this machine: the usual numbers, or free ones where those are taken."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

import psutil
import pulumi
from pulumi.dynamic import Resource
from pydantic import Field

from components.providers.base import Inputs, Provider, Record, ResourceError, warn
from components.supervision.installation import prepare_stack_folder
from components.supervision.layout import STACK_MARK, StackFolder
from components.supervision.reservations import ReservationError, Reservations, reservations
from components.supervision.sockets import description, holder, is_free, next_free


class PortsArgs(TypedDict):
    """Arguments of a service's ports."""

    folder: pulumi.Input[str]
    """The stack's folder."""
    service: pulumi.Input[str]
    preferred: pulumi.Input[Mapping[str, pulumi.Input[int]]]
    """The usual number of each port."""
    pinned: NotRequired[pulumi.Input[Mapping[str, pulumi.Input[int]]]]
    """Optional: ports that must have this number and no other."""


class PortsRecord(Record):
    """What a service's reservations are found by."""

    folder: str
    service: str


class PortsInputs(PortsRecord, Inputs):
    """The resolved :class:`PortsArgs`."""

    preferred: dict[str, int]
    pinned: dict[str, int] = Field(default_factory=dict)


class PortsProvider(Provider[PortsInputs, PortsRecord]):
    """Reservations, so that services that start at once get different numbers, whichever stacks they belong to.

    A number once given stays, over restarts and further ups, even if its usual one becomes free meanwhile. Only
    when another program has taken it while the service was down, a new one is given.
    """

    VERSION: ClassVar[str] = "1"
    model = PortsInputs
    record = PortsRecord
    identity = frozenset({"folder", "service"})

    def resource_id(self, declared: PortsInputs) -> str:
        """The service's name."""
        return declared.service

    def apply(self, declared: PortsInputs) -> Mapping[str, Any]:
        """Give each port its number.

        Raises:
            ResourceError: another process holds a pinned one.
        """
        prepare_stack_folder(StackFolder(Path(declared.folder)))
        with _reserved(declared) as reserved:
            siblings = frozenset(
                number
                for service, numbers in reserved.own.items()
                if service != declared.service
                for number in numbers.values()
            )
            before = reserved.own.get(declared.service, {})
            numbers: dict[str, int] = {}
            for port, usual in declared.preferred.items():
                taken = siblings | frozenset(numbers.values())
                if port in declared.pinned:
                    numbers[port] = _pinned(declared, port, taken, reserved.others)
                elif (
                    port in before
                    and before[port] not in taken
                    and _is_usable(declared, before[port], reserved.others)
                ):
                    numbers[port] = before[port]
                else:
                    avoided = taken | frozenset(declared.pinned.values())
                    numbers[port] = _free(declared, port, usual, avoided, reserved.others)
            reserved.own[declared.service] = numbers
        return {"numbers": numbers}

    def observe(self, recorded: PortsRecord) -> Mapping[str, Any] | None:
        """Return the reserved numbers; None when there are none, or when another process has taken one meanwhile."""
        with _reserved(recorded) as reserved:
            numbers = reserved.own.get(recorded.service)
            if numbers is None:
                return None
            usable = all(_is_usable(recorded, number, reserved.others) for number in numbers.values())
        return {"numbers": numbers} if usable else None

    def remove(self, recorded: PortsRecord) -> None:
        """Release the numbers."""
        with _reserved(recorded) as reserved:
            reserved.own.pop(recorded.service, None)


class Ports(Resource, module="marketlake", name="Ports"):
    """The ports of one service."""

    numbers: pulumi.Output[Mapping[str, int]]

    def __init__(self, name: str, args: PortsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the ports of `args["service"]` under the resource name `name`."""
        super().__init__(
            PortsProvider(), name, {**args, "numbers": None, "version": PortsProvider.VERSION}, opts
        )


def _pinned(declared: PortsInputs, port: str, taken: frozenset[int], others: Mapping[int, Path]) -> int:
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
    if not _is_usable(declared, number, others):
        raise ResourceError(
            f"{what}, is reserved by the stack in {others[number]}. Destroy that stack (if it is gone already, remove "
            "its folder), name another port in the settings, or none: then a free one is chosen."
        )
    return number


def _free(
    declared: PortsInputs, port: str, usual: int, taken: frozenset[int], others: Mapping[int, Path]
) -> int:
    if usual not in taken and usual not in others and is_free(usual):
        return usual
    number = next_free(usual, taken | frozenset(others))
    if usual in taken:
        reason = "another service of this stack"
    elif usual in others:
        reason = f"the stack in {others[usual]}"
    else:
        reason = description(holder(usual))
    warn(f"{declared.service}: port {usual} ({port}) is taken by {reason}; {number} is used instead.")
    return number


def _is_usable(recorded: PortsRecord, number: int, others: Mapping[int, Path]) -> bool:
    """Whether this stack may keep the number: nobody else listens on it, nor is about to."""
    if number in others:
        return not is_free(number) and _ours_or_free(recorded, number)
    return _ours_or_free(recorded, number)


def _ours_or_free(recorded: PortsRecord, number: int) -> bool:
    """Whether nobody listens on it but, perhaps, a process of this stack."""
    if is_free(number):
        return True
    process = holder(number)
    try:
        return process is not None and process.environ().get(STACK_MARK) == recorded.folder
    except psutil.Error:
        return False


@contextmanager
def _reserved(recorded: PortsRecord) -> Iterator[Reservations]:
    try:
        with reservations(StackFolder(Path(recorded.folder))) as reserved:
            yield reserved
    except ReservationError as error:
        raise ResourceError(str(error)) from None
