"""A cluster has settled when node, workloads and APIs say so; else what they say instead is reported."""

import json

import pytest

from playbooks.library import settled
from playbooks.library.settled import UnsettledError, complaints, settle, unmet

KUBECTL = """
file = Path({answers!r})
answers = json.loads(file.read_text())
kind = next(word for word in arguments[1:] if not word.startswith("-"))
turns = answers.get(kind)
if turns is None:
    sys.exit(1)
print(json.dumps({{"items": turns[0]}}))
if len(turns) > 1:
    turns.pop(0)
    file.write_text(json.dumps(answers))
"""
SAYS = {"kubectl": ["kubectl"], "node": "vm", "deployments": ["coredns"], "services": ["v1.metrics"]}


def thing(name: str, condition: str, status: str = "True", message: str = "", **of_status):
    conditions = [{"type": condition, "status": status, "message": message}]
    return {"metadata": {"name": name, "generation": 2}, "status": {"conditions": conditions, **of_status}}


def deployment(status: str = "True", message: str = "", *, observed: int = 2, updated: int = 1):
    counts = {"observedGeneration": observed, "updatedReplicas": updated, "replicas": 1}
    return thing("coredns", "Available", status, message, **counts)


READY = {
    "nodes": [[thing("vm", "Ready")]],
    "deployments": [[deployment()]],
    "apiservices": [[thing("v1.metrics", "Available")]],
    "pods": [[]],
}


@pytest.fixture
def answers(tmp_path, commands):
    """Sets what kubectl finds, turn by turn; the last turn stays."""
    file = tmp_path / "answers.json"
    commands.add("kubectl", KUBECTL.format(answers=str(file)))

    def given(**turns):
        file.write_text(json.dumps({**READY, **turns}))

    return given


def test_a_cluster_that_is_ready_is_not_waited_for(answers) -> None:
    answers()
    settle(**SAYS, timeout=0)


def test_a_cluster_that_becomes_ready_is_waited_for(answers, commands) -> None:
    answers(nodes=[[], [thing("vm", "Ready", "False", "cni is not initialised")], [thing("vm", "Ready")]])
    settle(**SAYS, timeout=30)
    assert [call for call in commands.calls if "nodes" in call][2:]


def test_what_is_not_ready_is_told_with_the_reason_of_its_pods(answers) -> None:
    waiting = {"state": {"waiting": {"reason": "ErrImageNeverPull", "message": "no such image"}}}
    pod = {
        "metadata": {"name": "coredns-1"},
        "status": {"containerStatuses": [{"name": "coredns", **waiting}]},
    }
    answers(deployments=[[deployment("False", "has not minimum availability")]], pods=[[pod]])
    with pytest.raises(UnsettledError) as told:
        settle(**SAYS, timeout=0)
    assert "deployment coredns: has not minimum availability" in str(told.value)
    assert "coredns-1/coredns: ErrImageNeverPull: no such image" in str(told.value)


def test_a_cluster_that_does_not_answer_lacks_everything(commands) -> None:
    commands.add("kubectl", "sys.exit(1)")
    with pytest.raises(UnsettledError, match="node vm is not there; deployment coredns is not there; API v1"):
        settle(**SAYS, timeout=0)


@pytest.mark.parametrize("state", [{"observed": 1}, {"updated": 0}])
def test_a_deployment_that_still_rolls_out_is_not_ready(state) -> None:
    assert unmet([deployment(**state)], "deployment", "Available", ["coredns"])
    assert not unmet([deployment()], "deployment", "Available", ["coredns"])


def test_what_has_said_nothing_yet_is_not_ready() -> None:
    assert unmet([{"metadata": {"name": "vm"}}], "node", "Ready", ["vm"]) == ["node vm: says nothing yet"]


def test_a_container_that_runs_complains_of_nothing() -> None:
    running = {"name": "c", "state": {"running": {}}}
    assert complaints([{"metadata": {"name": "p"}, "status": {"containerStatuses": [running]}}]) == []


def test_ansible_is_told_that_it_settled_or_why_not(answers, ask) -> None:
    answers()
    assert ask(settled, **SAYS)["changed"] is False
    answers(nodes=[[thing("vm", "Ready", "False", "disk pressure")]])
    told = ask(settled, **SAYS, timeout=0)
    assert told["failed"] is True
    assert "node vm: disk pressure" in told["msg"]
