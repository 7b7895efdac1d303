"""``python -m playbooks``: make this machine a Kubernetes node, or undo it."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from playbooks.artifacts import node_images, node_programs
from playbooks.machine import (
    MachineError,
    refuse_all_but_root,
    refuse_foreign_configuration,
    refuse_foreign_kubelet,
    refuse_taken_ports,
    refuse_unfit,
    this_machine,
)
from playbooks.node import (
    API_PORT,
    DEFAULT_ADDRESS,
    KUBECONFIG,
    RECORD,
    Node,
    NodeArgumentError,
    node_address,
    places,
)
from playbooks.running import (
    PlaybookError,
    PlaybookInterrupted,
    Run,
    Step,
    end_leftovers,
    run_playbook,
)
from toolchain.errors import ToolchainError

LOCK = Path("/run")
"""A folder that is there anyway: a lock file of our own would be a trace that stays."""
_LOOPBACK = "127.0.0.1"

app = typer.Typer(
    help="Make this machine a Kubernetes cluster of one node, or undo it.", no_args_is_help=True
)
AsJson = Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")]

Address = Annotated[
    str, typer.Option(help="The node's address; it is added to the machine where it is missing.")
]


@app.command()
def check(address: Address = DEFAULT_ADDRESS) -> None:
    """Check that this machine can be made a node, before anything is built for it."""
    with _told():
        _fit(address)


@app.command()
def up(address: Address = DEFAULT_ADDRESS, as_json: AsJson = False) -> None:
    """Make this machine a node; repeated, it changes nothing."""
    with _told():
        given = _fit(address)
        node = Node(this_machine(), given, node_programs(), node_images())
        with _alone():
            run = _run("cluster", node.variables())
    _tell(run, as_json, {"kubeconfig": str(KUBECONFIG), "server": node.server, "node": node.name})
    if not as_json:
        print(f"kubectl --kubeconfig {KUBECONFIG} get nodes   # {node.server}")


@app.command()
def down(as_json: AsJson = False) -> None:
    """Undo it: no process, mount, interface, rule or file of the node stays."""
    with _told():
        refuse_all_but_root("make cluster-down")
        with _alone():
            run = _run("cluster-down", places())
    _tell(run, as_json, {})


def _fit(address: str) -> IPv4Address:
    """The node's address, if this machine can be made a node."""
    refuse_unfit()
    given = node_address(address)
    refuse_foreign_kubelet()
    refuse_foreign_configuration(KUBECONFIG, RECORD)
    refuse_taken_ports(_ports(str(given)))
    return given


def _ports(address: str) -> dict[str, tuple[str, int]]:
    """Where our daemons listen."""
    return {
        "kube-apiserver": (address, API_PORT),
        "kubelet": (address, 10250),
        "etcd": (_LOOPBACK, 2379),
        "etcd's peers": (_LOOPBACK, 2380),
        "kubelet's health": (_LOOPBACK, 10248),
        "kube-proxy's metrics": (_LOOPBACK, 10249),
        "kube-proxy": (_LOOPBACK, 10256),
        "kube-controller-manager": (_LOOPBACK, 10257),
        "kube-scheduler": (_LOOPBACK, 10259),
        "kube-network-policies": (_LOOPBACK, 20244),
    }


def _run(playbook: str, variables: dict[str, Any]) -> Run:
    console = Console(stderr=True)
    with console.status("Ansible is starting") as status:

        def done(step: Step) -> None:
            mark = "[yellow]✓[/] changed" if step.changed else "[green]✓[/] as it should be"
            console.print(f"{mark}: {step.name} [dim]{step.seconds:.1f} s[/]", highlight=False)

        return run_playbook(playbook, variables, begun=status.update, done=done)


def _tell(run: Run, as_json: bool, facts: dict[str, Any]) -> None:
    if as_json:
        steps = [
            {"name": step.name, "seconds": round(step.seconds, 2), "changed": step.changed}
            for step in run.steps
        ]
        print(
            json.dumps(
                {**facts, "seconds": round(run.seconds, 1), "changed": run.changed, "steps": steps}, indent=1
            )
        )
    else:
        print(f"ok={len(run.steps)} changed={run.changed} in {run.seconds:.1f} s")


@contextmanager
def _alone() -> Iterator[None]:
    """One run at a time on a machine; a killed run's lock ends with it."""
    file = os.open(LOCK, os.O_RDONLY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            Console(stderr=True).print("waiting for another `make cluster` or `make cluster-down` to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        end_leftovers("cluster", "cluster-down")
        yield
    finally:
        os.close(file)


@contextmanager
def _told() -> Iterator[None]:
    """A mistake or a failed step is a message and an exit code, no stack trace."""
    try:
        yield
    except (MachineError, NodeArgumentError) as error:
        raise _Exit(error, 2) from error
    except (PlaybookError, ToolchainError) as error:
        raise _Exit(error, 1) from error
    except (PlaybookInterrupted, KeyboardInterrupt) as error:
        Console(stderr=True).print("interrupted: run it again to complete it")
        raise typer.Exit(130) from error


class _Exit(typer.Exit):
    def __init__(self, error: Exception, code: int) -> None:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        super().__init__(code)
