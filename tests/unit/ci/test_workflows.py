"""The workflows of GitHub Actions: what they may do, and the one comment per environment."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stacks.engine.workspace import PROJECT_FOLDER
from stacks.preview.report import Preview, report

GITHUB = PROJECT_FOLDER / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yaml"))
GH = """\
#!{python}
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
argv = sys.argv[1:]
calls = folder / "calls.json"
known = json.loads(calls.read_text()) if calls.exists() else []
body = next((item.partition("@")[2] for item in argv if item.startswith("body=@")), None)
known.append({{"argv": argv, "body": pathlib.Path(body).read_text() if body else None}})
calls.write_text(json.dumps(known))
if "--jq" in argv:
    sys.stdout.write((folder / "comments.tsv").read_text())
if (folder / "broken").exists():
    sys.exit("gh: HTTP 403")
"""


def workflow(name: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((GITHUB / "workflows" / name).read_text())
    return parsed


def steps(parsed: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in parsed["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_unless_a_job_says_more(path: Path) -> None:
    parsed = workflow(path.name)
    assert parsed["permissions"] == {"contents": "read"}
    asked = {name: job["permissions"] for name, job in parsed["jobs"].items() if "permissions" in job}
    allowed = {"preview": {"contents": "read", "pull-requests": "write"}}
    assert asked == (allowed if path.name == "preview.yaml" else {})
    assert all(job["timeout-minutes"] <= 120 for job in parsed["jobs"].values())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_keep_no_credentials(path: Path) -> None:
    for step in steps(workflow(path.name)):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_script_holds_an_expression_or_shows_a_secret(path: Path) -> None:
    """A value in a script's text could be a command, and a secret in an argument could be printed."""
    for step in steps(workflow(path.name)):
        script = step.get("run", "")
        assert "${{" not in script
        assert "set -x" not in script
        secret = [name for name, value in step.get("env", {}).items() if "secrets." in str(value)]
        for name in secret:
            for line in script.splitlines():
                if name in line and not line.strip().startswith("if [ -n "):
                    assert re.search(rf"umask 077 && printf '%s' \"\${name}\" > ", line), line


def test_a_forks_code_gets_neither_the_operators_runner_nor_a_token_that_writes() -> None:
    parsed = workflow("preview.yaml")
    triggers = parsed[True]  # YAML 1.1 reads the key `on` as true
    assert set(triggers) == {"pull_request"}, "never pull_request_target"
    jobs = parsed["jobs"]
    assert jobs["environments"]["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
    assert jobs["preview"]["needs"] == "environments"


def test_every_environment_is_previewed_with_the_readmes_own_commands() -> None:
    parsed = workflow("preview.yaml")
    scripts = [step.get("run", "") for step in parsed["jobs"]["preview"]["steps"]]
    order = [
        next(number for number, script in enumerate(scripts) if script.startswith(command))
        for command in ("make validate ", "make preview-report ", ".github/comment ")
    ]
    assert order == sorted(order)
    comment = parsed["jobs"]["preview"]["steps"][order[-1]]
    assert comment["if"] == "${{ !cancelled() }}", "a bad preview is reported, too"
    assert set(comment["env"]) == {"GH_TOKEN", "PULL_REQUEST"}
    makefile = (PROJECT_FOLDER / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in ("validate", "preview-report"))


def test_the_matrix_holds_every_environment() -> None:
    printed = subprocess.run([str(GITHUB / "environments")], capture_output=True, text=True, check=True)
    files = (PROJECT_FOLDER / "stacks" / "environments").glob("Pulumi.*.yaml")
    assert json.loads(printed.stdout) == sorted(file.name.split(".")[1] for file in files)
    assert "local" in json.loads(printed.stdout)


def test_ci_runs_what_ci_runs_everywhere() -> None:
    scripts = [step["run"] for step in steps(workflow("ci.yaml")) if "run" in step]
    assert scripts == [".ci/run"]
    assert os.access(PROJECT_FOLDER / ".ci" / "run", os.X_OK)


class Comments:
    """A pull request with comments, and a `gh` that knows no other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        gh = folder / "gh"
        gh.write_text(GH.format(python=sys.executable))
        gh.chmod(0o755)
        self.there()
        self.text = report(Preview(environment="blue", document={"steps": []}))
        (folder / "report.md").write_text(self.text)

    def there(self, *comments: tuple[int, str]) -> None:
        """What `gh api --jq` prints of the comments that are there: id and first line, by tab."""
        lines = "".join(f"{number}\t{first}\n" for number, first in comments)
        (self.folder / "comments.tsv").write_text(lines)

    def write(self, file: str = "report.md") -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": f"{self.folder}:/usr/bin:/bin",
            "GITHUB_REPOSITORY": "us/lake",
            "PULL_REQUEST": "7",
            "GH_TOKEN": "hunter2-token",
        }
        return subprocess.run(
            [str(GITHUB / "comment"), str(self.folder / file)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "calls.json"
        return json.loads(path.read_text()) if path.exists() else []


@pytest.fixture
def comments(tmp_path: Path) -> Comments:
    return Comments(tmp_path)


def test_the_first_report_becomes_a_comment(comments: Comments) -> None:
    comments.there((1, "looks good"), (2, "<!-- marketlake preview: blue-2 -->"))
    done = comments.write()
    assert (done.returncode, done.stdout) == (0, "wrote a comment\n")
    listed, written = comments.calls
    assert listed["argv"][:3] == ["api", "--paginate", "repos/us/lake/issues/7/comments"]
    assert written["argv"][:5] == ["api", "--silent", "--method", "POST", "repos/us/lake/issues/7/comments"]
    assert written["body"] == comments.text


def test_the_next_report_edits_it(comments: Comments) -> None:
    marker = comments.text.splitlines()[0]
    comments.there((1, "<!-- marketlake preview: green -->"), (22, marker), (23, marker))
    done = comments.write()
    assert (done.returncode, done.stdout) == (0, "edited the comment 22\n")
    edited = comments.calls[-1]
    assert edited["argv"][:5] == ["api", "--silent", "--method", "PATCH", "repos/us/lake/issues/comments/22"]
    assert edited["body"] == comments.text


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed; gh has its own")
def test_only_the_first_lines_of_bots_comments_are_asked_for(comments: Comments) -> None:
    comments.write()
    argv = comments.calls[0]["argv"]
    answer = [
        {"id": 1, "user": {"type": "User"}, "body": "<!-- a -->\nby hand"},
        {"id": 2, "user": {"type": "Bot"}, "body": "<!-- a -->\r\nours\tindeed"},
        {"id": 3, "user": {"type": "Bot"}, "body": ""},
    ]
    jq = ["jq", "--raw-output", argv[argv.index("--jq") + 1]]
    done = subprocess.run(jq, input=json.dumps(answer), capture_output=True, text=True, check=True)
    assert done.stdout == "2\t<!-- a -->\n3\t\n"


def test_without_a_report_nothing_is_written(comments: Comments) -> None:
    done = comments.write("absent.md")
    assert done.returncode == 0
    assert "there is no report" in done.stderr
    assert comments.calls == []


def test_what_github_refuses_fails_the_step_and_shows_no_token(comments: Comments) -> None:
    (comments.folder / "broken").touch()
    done = comments.write()
    assert done.returncode != 0
    assert "HTTP 403" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr + json.dumps(comments.calls)
