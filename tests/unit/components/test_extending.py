"""The page that tells how to add a service keeps its word."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.servers import run, server_folder
from tests.unit.components import test_components, test_kubernetes_target
from tests.unit.components.test_components import Engine, declare, engine
from tests.unit.components.test_kubernetes_target import Cluster, cluster
from toolchain import ToolMissingError, locate

__all__ = ["cluster", "engine"]

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len(lines) < 40, "a service takes less than forty lines"
    module = ModuleType("extending")
    sys.modules[module.__name__] = module
    exec(compile(code, str(PAGE), "exec"), module.__dict__)  # noqa: S102 - the page's own code
    return module


def test_it_runs_as_a_process_of_a_machine(engine: Engine, page: Any) -> None:
    declare(lambda: page.SeriesCache("cache", {"target": test_components.TARGET}))
    assert set(engine.declared) == {"cache", "cache-ports", "cache-process"}


def test_it_runs_as_a_workload_of_a_cluster(cluster: Cluster, page: Any) -> None:
    declare(lambda: page.SeriesCache("cache", {"target": test_kubernetes_target.TARGET}))
    (workload,) = cluster.of_kind("StatefulSet")
    assert workload["metadata"]["name"] == "series-cache"


def test_it_really_starts(page: Any) -> None:
    try:
        locate("victoria-metrics")
    except ToolMissingError as error:
        pytest.skip(str(error))
    with server_folder() as folder, run(page.cache_service(), folder) as server:
        assert server.process.poll() is None
