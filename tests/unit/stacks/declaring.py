"""An engine that records what a program declares, in place of Pulumi's."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks

from components.supervision import resolution

_SIGNATURE, _SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
"""How Pulumi's protocol marks a secret (sdk/proto, resource.SigKey and resource.SecretSig)."""


class Engine(mocks.Mocks):
    """Records what is declared, and gives each resource the outputs that others need of it."""

    def __init__(self) -> None:
        self.declared: dict[str, Any] = {}
        """Inputs by type and name."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        inputs = dict(args.inputs)
        self.declared[f"{args.typ} {args.name}"] = {
            key: value for key, value in inputs.items() if key != "__provider"
        }
        outputs = dict(inputs)
        if args.typ.endswith(":GeneratedSecret"):
            outputs["value"] = {_SIGNATURE: _SECRET, "value": f"value-of-{args.name}"}
        if args.typ.endswith(":Ports"):
            outputs["numbers"] = {**inputs["preferred"], **inputs.get("pinned", {})}
        if args.typ.endswith(":Supervisor"):
            outputs["socket"] = f"{inputs['folder']}/supervisor.sock"
        return args.name, outputs

    def call(self, args: mocks.MockCallArgs) -> Any:
        raise AssertionError(args)

    def inputs(self, name: str) -> dict[str, Any]:
        """Inputs of the only resource of this name."""
        (found,) = (inputs for key, inputs in self.declared.items() if key.endswith(f" {name}"))
        return dict(found)


def opened(value: Any) -> Any:
    """The value within a secret, which it has to be."""
    assert value[_SIGNATURE] == _SECRET
    return value["value"]


def declare(program: Callable[[], object]) -> Engine:
    """Run a Pulumi program of the stack ``test``."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    engine = Engine()
    mocks.set_mocks(engine, project="marketlake", stack="test")
    try:
        pulumi.runtime.test(lambda: (program(), None)[1])()
    finally:
        asyncio.get_event_loop().close()
    return engine


def all_tools_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tool is there, with whatever program is asked for."""

    def locate(name: str) -> Any:
        executables = {program: Path("/tools", program) for program in ("initdb", "postgres", "java", name)}
        receipt = SimpleNamespace(source="vendor", root=".")
        return SimpleNamespace(
            name=name, version="1", root=Path("/tools"), executables=executables, receipt=receipt
        )

    monkeypatch.setattr(resolution, "locate", locate)
