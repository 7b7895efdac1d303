"""Where a service's program lies on this machine."""

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.database import database_service
from components.observability.stores import trace_store_service
from components.supervision import resolution
from components.supervision.accounts import Account
from components.supervision.layout import StackFolder
from components.supervision.resolution import installed
from components.workflow_engine import workflow_engine_service

STACK = StackFolder(Path("/stack"))


def tool(source: str, inside: str) -> Any:
    root = Path("/cache/tool/1-linux") / inside
    executables = {name: root / "bin" / name for name in ("postgres", "initdb", "jaeger")}
    receipt = SimpleNamespace(source=source, root=inside)
    return SimpleNamespace(name="tool", version="1", root=root, executables=executables, receipt=receipt)


@pytest.mark.parametrize(("source", "has_pages"), [("vendor", True), ("mirror", True), ("registry", False)])
def test_a_page_that_only_a_release_has_is_not_promised_of_a_build(
    monkeypatch: pytest.MonkeyPatch, source: str, has_pages: bool
) -> None:
    monkeypatch.setattr(resolution, "locate", lambda _: tool(source, "."))
    assert installed(trace_store_service(), STACK).has_pages is has_pages


def test_a_user_runs_tools_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "locate", lambda _: tool("registry", "wheel/pg"))
    monkeypatch.setattr(resolution, "unprivileged", lambda: None)
    found = installed(database_service(), STACK)
    assert found.executables["postgres"] == Path("/cache/tool/1-linux/wheel/pg/bin/postgres")
    assert found.copies == {}


def test_root_runs_a_copy_that_the_servers_account_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "locate", lambda _: tool("registry", "wheel/pg"))
    monkeypatch.setattr(resolution, "unprivileged", lambda: Account(name="nobody", uid=1, gid=1))
    found = installed(database_service(), STACK)
    assert found.copies == {Path("/stack/tools/postgresql-1"): Path("/cache/tool/1-linux")}
    assert found.executables["postgres"] == Path("/stack/tools/postgresql-1/wheel/pg/bin/postgres")
    assert found.roots["postgresql"] == Path("/stack/tools/postgresql-1/wheel/pg")


def test_a_distribution_runs_by_its_script_in_this_environment() -> None:
    found = installed(workflow_engine_service(), STACK)
    assert found.version == metadata.version("prefect")
    assert found.executables["prefect"].is_file()
