"""What a stack in a cluster promises once it is up: the same as on any target, and in time."""

from tests.conformance.change import DriftPromises, RepetitionPromises
from tests.conformance.collecting import CollectionPromises
from tests.conformance.holdings import SERVICES
from tests.conformance.secrecy import SecrecyPromises
from tests.conformance.services import ServicePromises
from tests.kubernetes.live import NAMESPACE, LiveCluster

UP_S, NO_CHANGE_S = 240, 25
"""The project's goals on two cores."""


class TestServices(ServicePromises):
    """In a cluster."""


class TestCollection(CollectionPromises):
    """In a cluster."""


class TestSecrecy(SecrecyPromises):
    """In a cluster."""


class TestRepetition(RepetitionPromises):
    """In a cluster."""


class TestDrift(DriftPromises):
    """In a cluster."""


def test_up_and_no_change_keep_to_their_times(platform: LiveCluster, first_up: float, capsys) -> None:
    platform.pulumi("up", "--yes", "--skip-preview")
    no_change = platform.timings["pulumi up"]
    with capsys.disabled():
        print(f"\nfrom nothing to up: {first_up:.0f} s (goal {UP_S} s, ratio {first_up / UP_S:.2f})")
        print(f"no change: {no_change:.1f} s (goal {NO_CHANGE_S} s, ratio {no_change / NO_CHANGE_S:.2f})")
    assert first_up <= UP_S
    assert no_change <= NO_CHANGE_S


def test_every_service_is_a_workload_that_its_entry_in_the_platform_file_names(platform: LiveCluster) -> None:
    workloads = {
        f"kubernetes:{NAMESPACE}/{kind}/{item['metadata']['name']}"
        for kind in ("deployment", "statefulset")
        for item in platform.objects(kind)
    }
    assert {service.control for service in platform.settings.services} == workloads
    assert len(workloads) == len(SERVICES)


def test_no_container_was_started_anew(platform: LiveCluster) -> None:
    """A platform that comes up by crashing until its dependencies are there is not up in order."""
    restarts = {
        pod["metadata"]["name"]: status["restartCount"]
        for pod in platform.pods()
        for status in pod["status"]["containerStatuses"]
    }
    assert restarts
    assert not any(restarts.values()), restarts


def test_addresses_are_of_the_cluster_and_answer_on_the_node(platform: LiveCluster) -> None:
    virtual = {item["spec"]["clusterIP"] for item in platform.objects("services")}
    for service in platform.settings.services:
        if service.address:
            host = service.address.rpartition("//")[2].partition(":")[0]
            assert host in virtual, service


def test_deleted_and_changed_objects_are_seen_and_mended(platform: LiveCluster) -> None:
    deleted = ("deployment/workflow-worker", "networkpolicy/database", "poddisruptionbudget/event-bus")
    for item in deleted:
        platform.kubectl("delete", item, f"--namespace={NAMESPACE}")
    platform.kubectl("scale", "deployment/collection-worker", "--replicas=1", f"--namespace={NAMESPACE}")
    seen = platform.pulumi("preview", "--refresh", "--diff").stdout
    for item in (*deleted, "deployment/collection-worker"):
        assert item.partition("/")[2] in seen, item
    platform.make("up", "--no-collect")
    for item in deleted:
        assert platform.kubectl("get", item, f"--namespace={NAMESPACE}", "--output=name")
    platform.wait_for_pods()
    (worker,) = (
        item for item in platform.objects("deployments") if item["metadata"]["name"] == "collection-worker"
    )
    assert worker["spec"]["replicas"] == 2
    platform.wait_until_healthy()
    platform.pulumi("preview", "--expect-no-changes")
