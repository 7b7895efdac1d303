"""The components in a program that knows nothing of Python: Pulumi's YAML, brought up, used and taken down."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psycopg
import pytest

from components import package
from components.supervision.layout import StackFolder
from stacks.engine.process import finish
from stacks.engine.workspace import PROJECT_FOLDER, Workspace
from stacks.preflight import leftovers
from tests.servers import server_folder
from toolchain import ToolMissingError, locate

PROGRAM = PROJECT_FOLDER / "examples" / "yaml" / "Pulumi.yaml"
QUIET = ("--yes", "--skip-preview", "--suppress-progress", "--color=never")


def why_not() -> str:
    """What is missing to run the program; empty if nothing is."""
    try:
        locate("pulumi-language-yaml")
    except ToolMissingError as error:
        return f"{error} Or: make test-tools"
    return ""


pytestmark = pytest.mark.skipif(why_not() != "", reason=why_not() or "it runs here")


@dataclass(frozen=True, slots=True)
class Program:
    """A copy of the example, with a state of its own."""

    folder: Path
    workspace: Workspace

    def pulumi(self, *argv: str) -> str:
        done = finish(["pulumi", *argv], env=self.workspace.environment(), cwd=self.folder)
        assert done.code == 0, done.out + done.errors
        return done.out

    @property
    def services(self) -> Path:
        return self.folder / "services"

    @property
    def outputs(self) -> dict[str, Any]:
        known: dict[str, Any] = json.loads(self.pulumi("stack", "output", "--json", "--show-secrets"))
        return known

    def resources(self) -> list[dict[str, Any]]:
        state = json.loads(self.pulumi("stack", "export"))
        found: list[dict[str, Any]] = state["deployment"].get("resources", [])
        return found


@pytest.fixture
def program() -> Iterator[Program]:
    with server_folder() as home:
        home.chmod(0o711)  # PostgreSQL's account has to get through
        folder = home / "program"
        folder.mkdir(mode=0o711)
        text = PROGRAM.read_text().replace("../../.venv", sys.prefix).replace("../..", str(PROJECT_FOLDER))
        (folder / "Pulumi.yaml").write_text(text)
        workspace = Workspace(folder, home / "config", home / "state")
        workspace.prepare()
        copy = Program(folder, workspace)
        copy.pulumi("stack", "init", "test")
        try:
            yield copy
        finally:
            leftovers.stop_processes(copy.services)
            shutil.rmtree(copy.services, ignore_errors=True)


def test_a_program_in_yaml_brings_up_services_that_work_and_leaves_nothing(program: Program) -> None:
    program.pulumi("up", *QUIET)
    outputs = program.outputs
    with psycopg.connect(outputs["database"], password=outputs["databasePassword"]) as connection:
        connection.execute("CREATE TABLE notes (text text)")
        connection.execute("INSERT INTO notes VALUES ('kept')")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(outputs["database"], password="guessed")
    store = boto3.client(
        "s3",
        endpoint_url=outputs["store"],
        aws_access_key_id=outputs["accessKeyId"],
        aws_secret_access_key=outputs["secretAccessKey"],
        region_name="us-east-1",
    )
    store.create_bucket(Bucket="drawings")
    store.put_object(Bucket="drawings", Key="one", Body=b"a line")
    assert store.get_object(Bucket="drawings", Key="one")["Body"].read() == b"a line"

    kinds = {resource["type"] for resource in program.resources()}
    assert {f"{package.NAME}:index:{kind}" for kind in ("Host", "Database", "ObjectStore")} <= kinds
    state = program.pulumi("stack", "export")
    assert outputs["databasePassword"] not in state
    assert outputs["secretAccessKey"] not in state
    configuration = StackFolder(program.services).file("database", "postgresql.conf").read_text()
    assert "shared_buffers = '32MB'" in configuration, "a whole number stays one"

    processes = leftovers.processes(program.services)
    program.pulumi("up", *QUIET, "--expect-no-changes")
    assert leftovers.processes(program.services) == processes

    program.pulumi("destroy", *QUIET)
    assert program.resources() == []
    assert leftovers.processes(program.services) == []
    assert not program.services.exists()
    urls = [urlsplit(outputs[name]) for name in ("database", "store")]
    assert leftovers.listening([(str(url.hostname), int(url.port or 0)) for url in urls]) == []


def test_a_value_that_is_known_too_late_is_said_to_be(program: Program) -> None:
    written_out = """\
      target:
        kind: host
        host:
          folder: ${machine.folder}
          supervisor: ${machine.supervisor}
"""
    text = (program.folder / "Pulumi.yaml").read_text()
    assert written_out in text
    variable = "variables:\n" + written_out.replace("\n    ", "\n").removeprefix("    ")
    (program.folder / "Pulumi.yaml").write_text(
        text.replace(written_out, "      target: ${target}\n") + variable
    )
    done = finish(["pulumi", "preview", *QUIET[2:]], env=program.workspace.environment(), cwd=program.folder)
    assert done.code != 0
    assert "`target` has to be written out where it is used" in done.out + done.errors
