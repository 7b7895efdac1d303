"""Checks of a cluster against what a stack needs, before anything is created."""

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_network

from components.kubernetes.network import NOT_PUBLIC, is_named
from components.kubernetes.ownership import refusal
from components.target import external_servers
from stacks.preflight.capacity import CapacityError, Requirements
from stacks.preflight.survey import Survey
from stacks.program.external_servers import servers_of_runtime
from stacks.settings.environment import EnvironmentSettings

OLDEST_VERSION = (1, 30)
"""The oldest API server that serves everything the platform asks for."""


def check_cluster(
    survey: Survey, required: Requirements, settings: EnvironmentSettings, environment: str
) -> list[str]:
    """Raise if the cluster cannot run the stack; return warnings of what is scarce.

    Raises:
        CapacityError: the message lists everything that is missing.
    """
    if problems := list(_problems(survey, required, settings, environment)):
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise CapacityError(
            f"The cluster does not fit the stack:{lines}\nAll settings: docs/reference/settings.md"
        )
    return list(_warnings(survey, settings))


def _problems(
    survey: Survey, required: Requirements, settings: EnvironmentSettings, environment: str
) -> Iterator[str]:
    if survey.version < OLDEST_VERSION:
        yield (
            f"version: it is Kubernetes {_dotted(survey.version)}, and {_dotted(OLDEST_VERSION)} is the oldest that "
            "will do. Upgrade it, or choose another with marketlake:kubernetes.kubeconfig"
        )
    namespace = settings.kubernetes.namespace_of(environment)
    if survey.owner not in (None, environment):
        yield f"namespace: {refusal(namespace, owner=survey.owner, stack=environment)}"
    yield from _storage(survey, settings)
    yield from _open_networks(survey, settings)
    if survey.allocatable and survey.requested:
        memory = survey.allocatable.memory_mib - survey.requested.memory_mib
        if memory < required.memory_mib:
            yield (
                f"memory: {memory} MiB of the nodes are not set aside for others, the services ask for "
                f"{required.memory_mib} MiB. Lower the `memory` settings or marketlake:collection.workers, or add "
                "a node"
            )
        cpu = survey.allocatable.cpu_millis - survey.requested.cpu_millis
        if cpu < required.cpu_millis:
            yield (
                f"CPU: {cpu} thousandths of a core are not set aside for others, the services ask for "
                f"{required.cpu_millis}. Lower the `cpu` settings or marketlake:collection.workers, or add a node"
            )


def _storage(survey: Survey, settings: EnvironmentSettings) -> Iterator[str]:
    known = survey.storage_classes
    if known is None:
        return
    usual = settings.kubernetes.storage_class
    named = {"kubernetes.storageClass": usual}
    uses_default = usual is None and settings.telemetry.storage_class is None
    named["telemetry.storageClass"] = settings.telemetry.storage_class
    for key, section in (
        ("database", settings.database),
        ("objectStore", settings.object_store),
        ("eventBus", settings.event_bus),
    ):
        if section.external is None:
            named[f"{key}.storageClass"] = section.storage_class
            uses_default |= usual is None and section.storage_class is None
    there = f"it has {', '.join(sorted(known)) or 'none'}"
    for place, name in named.items():
        if name is not None and name not in known:
            yield f"storage: marketlake:{place} is {name!r}, and there is no such storage class; {there}"
    if uses_default and not any(known.values()):
        yield (
            "storage: it has no default storage class, and marketlake:kubernetes.storageClass names none: name one; "
            f"{there}"
        )


def _open_networks(survey: Survey, settings: EnvironmentSettings) -> Iterator[str]:
    """Public networks of the cluster that the ways to external servers would lead to as well."""
    if not any(map(is_named, external_servers(servers_of_runtime(settings)))):
        return
    closed = [IPv4Network(text) for text in (*NOT_PUBLIC, *settings.kubernetes.closed_networks)]
    for network in sorted(map(IPv4Network, survey.networks)):
        if not any(network.subnet_of(outer) for outer in closed):
            yield (
                f"network: {network} is the cluster's and public, and services that call external servers would reach "
                "it. Name it, or a network around it, in marketlake:kubernetes.closedNetworks"
            )


def _warnings(survey: Survey, settings: EnvironmentSettings) -> Iterator[str]:
    if settings.collection.max_workers is not None and survey.has_metrics is False:
        yield (
            "marketlake:collection.maxWorkers asks for further workers under load, but the cluster does not measure "
            "it: there is no metrics API (metrics-server). There will be "
            f"{settings.collection.workers} of them"
        )


def closed_servers(settings: EnvironmentSettings, resolve: Callable[[str], Sequence[str]]) -> Iterator[str]:
    """External servers whose names lead, from here, to where no pod is let; as warnings, since it may differ there.

    Args:
        settings: the environment's.
        resolve: gives the IPv4 addresses of a name; none if it is not known.
    """
    closed = [IPv4Network(text) for text in (*NOT_PUBLIC, *settings.kubernetes.closed_networks)]
    opened = [ip_network(text) for text in settings.kubernetes.external_networks]
    servers = external_servers(servers_of_runtime(settings))
    for host in sorted({server.host for server in servers if server.host and is_named(server)}):
        for address in map(IPv4Address, resolve(host)):
            if any(address in network for network in closed) and not any(address in one for one in opened):
                yield (
                    f"{host} is {address} from here, which services in the cluster may not reach. If it is the same "
                    f"there, name {address}/32, or a network around it, in marketlake:kubernetes.externalNetworks"
                )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
