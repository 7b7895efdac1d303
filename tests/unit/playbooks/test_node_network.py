"""What a node changes in the kernel is changed once, and written down before."""

import json

import pytest

from playbooks.library import node_network
from playbooks.library.node_network import NetworkError, ensure, ensure_settings, masquerading, tables
from playbooks.record import read_record

PODS, SERVICES, ADDRESS = "10.244.0.0/16", "10.96.0.0/16", "198.51.100.10"
IP = """
file = Path({state!r})
state = json.loads(file.read_text())
if arguments[:3] == ["-json", "-4", "address"]:
    print(json.dumps([{{"addr_info": [{{"local": each}} for each in state["addresses"]]}}]))
elif arguments[:2] == ["address", "add"]:
    state["addresses"].append(arguments[2].partition("/")[0])
elif arguments[:2] == ["address", "delete"]:
    state["addresses"].remove(arguments[2].partition("/")[0])
elif arguments[:2] == ["route", "show"]:
    print("\\n".join(each for each in state["routes"] if each == arguments[2]))
elif arguments[:2] == ["route", "add"]:
    state["routes"].append(arguments[2])
file.write_text(json.dumps(state))
"""
NFT = """
file = Path({table!r})
if arguments[:2] == ["list", "tables"]:
    print("table ip filter")
elif arguments[0] == "list":
    sys.exit(1) if not file.exists() else print(file.read_text(), end="")
else:
    file.write_text("".join(sys.stdin.readlines()[2:]))
"""


class Kernel:
    """Addresses, routes, rules and settings in files."""

    def __init__(self, folder, commands) -> None:
        self.record = folder / "data" / "before.json"
        self.settings = folder / "settings"
        self.settings.mkdir()
        (self.settings / "net.ipv4.ip_forward").write_text("0\n")
        self._state = folder / "state.json"
        self._state.write_text(json.dumps({"addresses": ["127.0.0.1"], "routes": []}))
        self.table = folder / "table"
        commands.add("ip", IP.format(state=str(self._state)))
        commands.add("nft", NFT.format(table=str(self.table)))
        commands.add("modprobe", "sys.exit(1)")

    @property
    def addresses(self) -> list[str]:
        return json.loads(self._state.read_text())["addresses"]

    @property
    def routes(self) -> list[str]:
        return json.loads(self._state.read_text())["routes"]

    def forwards(self) -> str:
        return (self.settings / "net.ipv4.ip_forward").read_text().strip()


@pytest.fixture
def kernel(tmp_path, commands, monkeypatch):
    found = Kernel(tmp_path, commands)
    monkeypatch.setattr(node_network, "setting", lambda name: found.settings / name)
    return found


def bring(kernel, **other):
    asked = {
        "address": ADDRESS,
        "pods": PODS,
        "services": SERVICES,
        "settings": {"net.ipv4.ip_forward": "1"},
        "shared": [],
    }
    return ensure(kernel.record, **asked | other)


def test_a_bare_machine_gets_all_of_it_and_a_second_run_nothing(kernel) -> None:
    assert bring(kernel) == ["net.ipv4.ip_forward", ADDRESS, "route", "masquerading"]
    assert (kernel.addresses, kernel.routes) == (["127.0.0.1", ADDRESS], [SERVICES])
    assert kernel.table.read_text() == masquerading(PODS)
    assert bring(kernel) == []


def test_what_was_before_is_written_down(kernel, tmp_path) -> None:
    there, missing = tmp_path / "there", tmp_path / "missing"
    there.mkdir()
    bring(kernel, shared=[str(there), str(missing)])
    record = read_record(kernel.record)
    assert record["settings"] == {"net.ipv4.ip_forward": "0"}
    assert record["tables"] == ["ip filter"]
    assert record["paths"] == [str(there)]
    assert (record["address"], record["services"]) == (ADDRESS, SERVICES)


def test_a_second_run_does_not_take_our_own_change_for_what_was_before(kernel) -> None:
    bring(kernel)
    (kernel.settings / "net.ipv4.ip_forward").write_text("2")
    assert bring(kernel) == ["net.ipv4.ip_forward"]
    assert read_record(kernel.record)["settings"] == {"net.ipv4.ip_forward": "0"}
    assert kernel.forwards() == "1"


def test_an_address_that_the_machine_has_is_not_ours_to_remove(kernel) -> None:
    bring(kernel, address="127.0.0.1")
    assert "address" not in read_record(kernel.record)


def test_a_node_that_moves_leaves_its_former_address(kernel) -> None:
    bring(kernel)
    assert bring(kernel, address="192.0.2.7")[:2] == [ADDRESS, "192.0.2.7"]
    assert kernel.addresses == ["127.0.0.1", "192.0.2.7"]
    assert read_record(kernel.record)["address"] == "192.0.2.7"


def test_rules_that_somebody_changed_are_put_back(kernel) -> None:
    bring(kernel)
    kernel.table.write_text("table ip marketlake-cluster {\n}\n")
    assert bring(kernel) == ["masquerading"]
    assert kernel.table.read_text() == masquerading(PODS)


def test_a_kernel_without_a_setting_is_told_which(kernel) -> None:
    with pytest.raises(NetworkError, match=r"no setting net\.bridge\.bridge-nf-call-iptables"):
        ensure_settings({"net.bridge.bridge-nf-call-iptables": "1"}, {})


def test_a_command_that_fails_is_told_with_its_words(commands) -> None:
    commands.add("nft", "print('Operation not permitted', file=sys.stderr); sys.exit(1)")
    with pytest.raises(NetworkError, match="`nft list tables` failed: Operation not permitted"):
        tables()


def test_a_setting_is_a_file_of_the_kernel() -> None:
    assert str(node_network.setting("net.ipv4.ip_forward")) == "/proc/sys/net/ipv4/ip_forward"


def test_ansible_is_told_what_was_altered(kernel, ask) -> None:
    asked = {
        "record": str(kernel.record),
        "address": ADDRESS,
        "pods": PODS,
        "services": SERVICES,
        "settings": {"net.ipv4.ip_forward": "1"},
    }
    assert ADDRESS in ask(node_network, **asked)["altered"]
    assert ask(node_network, **asked)["changed"] is False
    failed = ask(node_network, **asked | {"settings": {"net.none": "1"}})
    assert failed["failed"] is True
    assert "net.none" in failed["msg"]
