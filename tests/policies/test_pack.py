"""The rules as Pulumi runs them."""

import json
import os
import runpy
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi_policy
import pytest
from pulumi_policy import EnforcementLevel, ResourceValidationPolicy, StackValidationPolicy
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from policies.pack import plain, policies_of
from policies.rules import RULES, Enforcement
from policies.rules.reading import UNKNOWN
from stacks.engine.workspace import PROJECT_FOLDER, Workspace
from tests.policies.samples import LABELS, changed, deployment
from toolchain import ToolMissingError, locate

DEPLOYMENT = "kubernetes:apps/v1:Deployment"
IMAGE = ("spec", "template", "spec", "containers", 0, "image")
UNTAGGED = {"storageEncrypted": True, "backupRetentionPeriod": 7}


def policy(rule_id: str) -> Any:
    (found,) = (found for found in policies_of(RULES) if found.name == rule_id)
    return found


def told_of_resource(rule_id: str, properties: dict[str, Any]) -> list[str]:
    reports: list[str] = []
    args = SimpleNamespace(resource_type=DEPLOYMENT, props=unknown_checking_proxy(properties))
    policy(rule_id).validate(args, lambda message, urn=None: reports.append(message))
    return reports


def test_each_rule_is_one_policy_at_its_level() -> None:
    made = {found.name: found for found in policies_of(RULES)}
    assert set(made) == {rule.id for rule in RULES}
    for rule in RULES:
        found = made[rule.id]
        assert isinstance(found, ResourceValidationPolicy if rule.resource else StackValidationPolicy)
        assert found.enforcement_level == EnforcementLevel(rule.enforcement.value)
        assert (found.description, found.remediation_steps) == (rule.title, rule.remedy)
    assert {Enforcement.MANDATORY, Enforcement.ADVISORY} == {rule.enforcement for rule in RULES}


def test_a_resource_is_reported_once_per_rule_with_all_places_and_the_remedy() -> None:
    properties = changed(DEPLOYMENT, *IMAGE, value="web:1")
    properties["spec"]["template"]["spec"]["initContainers"][0]["image"] = "web:2"
    (report,) = told_of_resource("image-by-digest", properties)
    first, second, remedy = report.splitlines()
    assert "initContainers[0].image: is 'web:2'" in first
    assert "containers[0].image: is 'web:1'" in second
    assert remedy.startswith("Name the image as")
    assert told_of_resource("image-by-digest", deployment()) == []


def test_what_is_unknown_in_a_preview_keeps_no_rule_from_the_rest() -> None:
    properties = changed(DEPLOYMENT, *IMAGE, value=UNKNOWN_STRING_VALUE)
    assert told_of_resource("image-by-digest", properties) == []
    properties["spec"]["template"]["spec"]["initContainers"][0]["image"] = "web:2"
    assert len(told_of_resource("image-by-digest", properties)) == 1


def test_properties_become_plain_data() -> None:
    view = unknown_checking_proxy({"a": [1.0, "x", None, UNKNOWN_STRING_VALUE], "b": {"c": True}})
    assert plain(view) == {"a": [1.0, "x", None, UNKNOWN], "b": {"c": True}}


def test_a_stack_rule_names_the_resource() -> None:
    pods = SimpleNamespace(
        urn="urn:web", resource_type=DEPLOYMENT, name="web", props=unknown_checking_proxy(deployment()),
        property_dependencies={"metadata": [SimpleNamespace(urn="urn:space")]},
    )  # fmt: skip
    reports: list[tuple[str, str | None]] = []
    policy("namespace-closed").validate(
        SimpleNamespace(resources=[pods]), lambda message, urn=None: reports.append((message, urn))
    )
    ((message, urn),) = reports
    assert urn == "urn:web"
    assert message.startswith("metadata.namespace: the namespace lake has no NetworkPolicy")


def test_the_pack_holds_every_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    served: dict[str, Any] = {}
    monkeypatch.setattr(pulumi_policy, "PolicyPack", lambda **given: served.update(given))
    runpy.run_module("policies", run_name="__main__")
    assert served["name"] == "marketlake"
    assert [found.name for found in served["policies"]] == [rule.id for rule in RULES]


def state(folder: Path, *resources: tuple[str, dict[str, Any]]) -> Path:
    """A state as `pulumi stack export` writes it."""
    entries: list[dict[str, Any]] = [
        {
            "urn": "urn:pulumi:t::marketlake::pulumi:pulumi:Stack::marketlake-t",
            "type": "pulumi:pulumi:Stack",
            "custom": False,
        }
    ]
    for number, (kind, properties) in enumerate(resources):
        urn = f"urn:pulumi:t::marketlake::{kind}::r{number}"
        entry = {
            "urn": urn,
            "id": urn,
            "type": kind,
            "custom": True,
            "inputs": properties,
            "outputs": properties,
        }
        entries.append(entry)
    manifest = {"time": "2026-01-01T00:00:00Z", "magic": "", "version": ""}
    path = folder / "state.json"
    path.write_text(
        json.dumps({"version": 3, "deployment": {"manifest": manifest, "resources": entries}}), "utf-8"
    )
    return path


def analyse(folder: Path, path: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:
    try:
        locate("pulumi")
        locate("pulumi-language-python")
    except ToolMissingError as error:
        pytest.skip(str(error))
    pack = PROJECT_FOLDER / "policies"
    argv = ["pulumi", "policy", "analyze", "--file", str(path), "--policy-pack", str(pack), "--json", *more]
    environment = Workspace(PROJECT_FOLDER, folder, folder).environment()
    environment |= {"PULUMI_HOME": str(folder), "HOME": os.environ.get("HOME", str(folder))}
    done = subprocess.run(
        argv, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert events, done.stderr
    return done.returncode, [event["policyEvent"] for event in events if "policyEvent" in event]


def test_pulumi_finds_nothing_in_a_state_that_keeps_the_rules(tmp_path: Path) -> None:
    closing = {
        "metadata": {"name": "deny-all", "namespace": "lake", "labels": LABELS},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }
    kept = state(
        tmp_path, (DEPLOYMENT, deployment()), ("kubernetes:networking.k8s.io/v1:NetworkPolicy", closing)
    )
    assert analyse(tmp_path, kept) == (0, [])


def test_pulumi_finds_what_breaks_the_rules_in_a_state_and_fails(tmp_path: Path) -> None:
    broken = state(tmp_path, (DEPLOYMENT, changed(DEPLOYMENT, *IMAGE, value="web:1")))
    code, found = analyse(tmp_path, broken)
    assert code != 0
    assert {(event["policyName"], event["enforcementLevel"]) for event in found} == {
        ("image-by-digest", "mandatory"),
        ("namespace-closed", "mandatory"),
    }
    assert all(event["resourceUrn"].endswith(":Deployment::r0") for event in found)


def test_an_environment_can_weaken_a_rule_and_an_advisory_one_only_tells(tmp_path: Path) -> None:
    broken = state(tmp_path, ("aws:rds/instance:Instance", UNTAGGED | {"storageEncrypted": False}))
    config = tmp_path / "levels.json"
    config.write_text(json.dumps({"encrypted-at-rest": "advisory"}))
    code, found = analyse(tmp_path, broken, "--policy-pack-config", str(config))
    assert code == 0
    assert {event["policyName"]: event["enforcementLevel"] for event in found} == {
        "encrypted-at-rest": "advisory",
        "tagged": "advisory",
    }


def test_the_pack_runs_with_the_projects_own_python() -> None:
    pack = (PROJECT_FOLDER / "policies" / "PulumiPolicy.yaml").read_text()
    assert "virtualenv: ../.venv" in pack
    assert shutil.which("python", path=str(PROJECT_FOLDER / ".venv" / "bin"))
