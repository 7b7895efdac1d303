"""Policies and reports with the real Pulumi: what a program declares, what breaks a rule, what changes."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stacks.commands import up as up_command
from stacks.commands.policy import check_policies
from stacks.commands.preview import preview, preview_for_report
from stacks.commands.stack import Stack
from stacks.commands.up import up
from stacks.engine.process import ProgramError
from stacks.engine.workspace import PROJECT_FOLDER, Workspace
from stacks.preview.report import report

PROGRAM = """
import json
from pathlib import Path
import pulumi
from components.providers.base import Inputs, Provider
from pulumi.dynamic import Resource
from bucket import Bucket

wanted = json.loads(Path("../wanted.json").read_text())
fails = wanted.pop("fails", None)
Bucket("landing", password=pulumi.Output.secret("hunter2-secret"), **wanted)
if fails:
    raise pulumi.RunError(fails)
"""
BUCKET = '''
"""A resource of the type of our buckets that is nowhere."""

from typing import Any

from components.providers.base import Inputs, Provider
from pulumi.dynamic import Resource


class BucketInputs(Inputs):
    bucket: str
    password: str
    versioning: bool = False
    access: str = "private"


class BucketProvider(Provider[BucketInputs, BucketInputs]):
    model = record = BucketInputs
    identity = frozenset({"bucket"})

    def resource_id(self, declared: BucketInputs) -> str:
        return declared.bucket

    def apply(self, declared: BucketInputs) -> dict[str, Any]:
        return {}

    def observe(self, declared: BucketInputs) -> dict[str, Any]:
        return {}

    def remove(self, declared: BucketInputs) -> None:
        return None


class Bucket(Resource, module="marketlake", name="Bucket"):
    def __init__(self, name: str, **inputs: Any) -> None:
        super().__init__(BucketProvider(), name, {**inputs, "version": "1"})
'''


class Project:
    """A project that is laid out as ours, with an environment `blue` that consists of one bucket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        stacks = folder / "project" / "stacks"
        (stacks / "environments").mkdir(parents=True)
        (folder / "project" / "Pulumi.yaml").write_text((PROJECT_FOLDER / "Pulumi.yaml").read_text())
        (stacks / "__main__.py").write_text(PROGRAM)
        (stacks / "bucket.py").write_text(BUCKET)
        (stacks / "environments" / "Pulumi.blue.yaml").write_text("config:\n  marketlake:target: host\n")
        (folder / "project" / ".venv").symlink_to(sys.prefix)
        (stacks / ".venv").symlink_to("../.venv")
        self.said = io.StringIO()

    @property
    def stack(self) -> Stack:
        workspace = Workspace(self.folder / "project", self.folder / "config", self.folder / "state")
        return Stack("blue", workspace, Console(file=self.said, width=300))

    def want(self, **wanted: Any) -> None:
        (self.folder / "project" / "wanted.json").write_text(json.dumps(wanted))

    def weaken(self, **levels: str) -> None:
        path = self.folder / "project" / "stacks" / "environments" / "policies.blue.json"
        path.write_text(json.dumps({rule.replace("_", "-"): level for rule, level in levels.items()}))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("MARKETLAKE_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(up_command, "show_summary", lambda *_, **__: None)
    return Project(tmp_path)


def test_a_preview_that_breaks_a_policy_fails_and_its_report_says_why(project: Project) -> None:
    project.want(bucket="one", versioning=False)
    seen = preview_for_report(project.stack)
    text = report(seen)
    assert not seen.good
    assert "**1 policy violation**" in text
    assert "- **mandatory** `bucket-versioned` Bucket `landing`: Buckets keep former versions" in text
    assert "  - versioning: must be true" in text
    with pytest.raises(ProgramError):
        preview(project.stack)


def test_an_environment_can_say_that_a_rule_only_tells(project: Project) -> None:
    project.want(bucket="one", versioning=False)
    project.weaken(bucket_versioned="advisory")
    seen = preview_for_report(project.stack)
    assert seen.good
    assert "- **advisory** `bucket-versioned` Bucket `landing`" in report(seen)


def test_the_recorded_state_is_held_to_the_policies(project: Project) -> None:
    project.want(bucket="one", versioning=True)
    up(project.stack, collect=False)
    check_policies(project.stack)
    project.want(bucket="one", versioning=False)
    up(project.stack, collect=False)  # `up` is the operator's; what it left behind is found
    with pytest.raises(ProgramError):
        check_policies(project.stack)


def test_a_report_follows_a_stack_from_nothing_to_a_replacement(project: Project) -> None:
    project.want(bucket="one", versioning=True)
    first = report(preview_for_report(project.stack))
    assert "**2 to create**" in first
    assert "### Created\n- **the stack itself** (2): Bucket `landing`; Stack `marketlake-blue`\n" in first

    up(project.stack, collect=False)
    assert "**No change** · 2 unchanged\n" in report(preview_for_report(project.stack))

    project.want(bucket="one", versioning=True, access="public-read")
    project.weaken(no_public_bucket="disabled")
    updated = report(preview_for_report(project.stack))
    assert "### Updated\n- Bucket `landing`\n  - `access`: `private` → `public-read`\n" in updated

    project.want(bucket="two", versioning=True)
    replaced = report(preview_for_report(project.stack))
    assert (
        "### Replaced: deleted and made anew\n"
        "- Bucket `landing`: loses nothing while it holds objects: then its deletion fails\n"
        "  - `bucket` (replaces): `one` → `two`\n"
    ) in replaced
    assert "hunter2" not in first + updated + replaced


def test_a_program_that_fails_is_reported_with_its_own_words(project: Project) -> None:
    project.want(bucket="one", versioning=True, fails="no way, password=hunter2-secret")
    seen = preview_for_report(project.stack)
    text = report(seen)
    assert not seen.good
    assert "**The preview failed**" in text
    assert "no way, password=***" in text
    assert "hunter2" not in text
