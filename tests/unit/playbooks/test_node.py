"""What the playbooks are configured with for a node."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from playbooks.node import DEFAULT_ADDRESS, Node, NodeArgumentError, node_address, node_name, places


@pytest.mark.parametrize("text", [DEFAULT_ADDRESS, "10.0.0.7", "192.168.1.20"])
def test_an_address_of_the_machines_networks_is_taken(text: str) -> None:
    assert node_address(text) == IPv4Address(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("node-1", "is no IPv4 address, e.g. 198.51.100.10"),
        ("fd00::1", "is no IPv4 address"),
        ("127.0.0.1", "pods must reach it"),
        ("0.0.0.0", "pods must reach it"),  # noqa: S104 - it is refused
        ("224.0.0.1", "pods must reach it"),
        ("10.244.3.4", "lies in 10.244.0.0/16, which is for pods"),
        ("10.96.0.10", "lies in 10.96.0.0/16, which is for Services"),
    ],
)
def test_an_address_that_no_node_can_have_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(NodeArgumentError, match=reason) as refused:
        node_address(text)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("host", "name"),
    [("vm", "vm"), ("Build_Host.Example", "build-host.example"), ("-x-", "x"), ("___", "node")],
)
def test_a_hosts_name_becomes_one_that_kubernetes_takes(host: str, name: str) -> None:
    assert node_name(host) == name


def test_a_long_name_is_cut_where_kubernetes_ends_it() -> None:
    assert node_name("a" * 62 + "-bcd") == "a" * 62


def test_addresses_are_those_that_the_documents_promise(node: Node) -> None:
    told = node.variables()
    assert (told["pods"], told["services"]) == ("10.244.0.0/16", "10.96.0.0/16")
    assert (told["dns"], told["api_service"]) == ("10.96.0.10", "10.96.0.1")
    assert told["server"] == "https://198.51.100.10:6443"


def test_programs_are_placed_where_no_cleared_cache_takes_them_away(node: Node) -> None:
    programs = node.variables()["programs"]
    assert programs["/opt/marketlake-cluster/kubelet"] == "/cache/kubelet/1.2.3/bin/kubelet"
    assert {str(Path(target).parent) for target in programs} == {"/opt/marketlake-cluster"}


def test_what_is_removed_is_all_that_was_made(node: Node) -> None:
    """Every folder that a node is made in is among those that `cluster-down` removes."""
    told, removed = node.variables(), places()["folders"]
    assert set(told["private_folders"]) <= set(removed)
    assert {str(Path(target).parent) for target in told["programs"]} <= set(removed)
    assert "/var/lib/kubelet" in removed
    assert not set(removed) & set(places()["shared_folders"])
