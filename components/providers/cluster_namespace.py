"""A namespace of a Kubernetes cluster that belongs to one stack, volumes and all.

It is not left to Pulumi's Kubernetes provider because that cannot adopt: a namespace whose data was kept by
`make down DATA=keep` is taken up again by the next `up`, and one of another owner never is.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NotRequired, TypedDict, TypeVar

import pulumi
from pulumi.dynamic import Resource
from pydantic import Field

from components.kubernetes.labels import INSTANCE, stack_labels
from components.kubernetes.ownership import refusal
from components.providers.base import DRIFT, Inputs, Provider, Record, ResourceError, UnreachableError
from components.supervision.layout import keep_data

_SECURITY = "pod-security.kubernetes.io"
_GONE_S = 300
_PAUSE_S = 1.0

Result = TypeVar("Result")


class ClusterNamespaceArgs(TypedDict):
    """Arguments of a namespace."""

    namespace: pulumi.Input[str]
    """Its name."""
    stack: pulumi.Input[str]
    """The environment that it belongs to."""
    kubeconfig: pulumi.Input[str]
    """Path of the kubeconfig file that opens the cluster."""
    context: NotRequired[pulumi.Input[str | None]]
    """Optional: the kubeconfig's current one when omitted."""
    keep_data: NotRequired[pulumi.Input[bool]]
    """Optional: the namespace and its volumes outlive the stack; when omitted they go with it."""


class ClusterNamespaceRecord(Record):
    """What a namespace is found, and deleted, by."""

    namespace: str
    stack: str
    kubeconfig: str
    context: str | None = None
    keep_data: bool = False


class ClusterNamespaceInputs(ClusterNamespaceRecord, Inputs):
    """The resolved :class:`ClusterNamespaceArgs`."""

    namespace: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$")


class ClusterNamespaceProvider(Provider[ClusterNamespaceInputs, ClusterNamespaceRecord]):
    """Namespaces that enforce the restricted pod security standard."""

    VERSION: ClassVar[str] = "1"
    model = ClusterNamespaceInputs
    record = ClusterNamespaceRecord
    identity = frozenset({"namespace", "stack"})

    def resource_id(self, declared: ClusterNamespaceInputs) -> str:
        """The namespace's name."""
        return declared.namespace

    def apply(self, declared: ClusterNamespaceInputs) -> Mapping[str, Any]:
        """Create the namespace, or adopt it if it is this stack's."""

        def bring(api: Any) -> None:
            labels = _labels(declared)
            live = _look(api, declared)
            if live is None:
                _resource(api, declared, labels).create()
                return
            owner = live.labels.get(INSTANCE)
            if owner != declared.stack:
                said = refusal(declared.namespace, owner=owner, stack=declared.stack)
                raise ResourceError(f"the namespace {said}.")
            if any(live.labels.get(key) != value for key, value in labels.items()):
                live.label(labels)

        _ask(declared, bring)
        return {}

    def observe(self, recorded: ClusterNamespaceRecord) -> Mapping[str, Any] | None:
        """None unless it is there and ours; a label that is not as it should be is drift."""

        def look(api: Any) -> Mapping[str, Any] | None:
            live = _look(api, recorded)
            if live is None or live.labels.get(INSTANCE) != recorded.stack:
                return None
            wrong = [key for key, value in _labels(recorded).items() if live.labels.get(key) != value]
            return (
                {DRIFT: f"labels that are not as they should be: {', '.join(sorted(wrong))}"} if wrong else {}
            )

        return _ask(recorded, look)

    def remove(self, recorded: ClusterNamespaceRecord) -> None:
        """Delete the namespace with everything in it, unless its data is to be kept, and wait until it is gone."""
        if recorded.keep_data or keep_data():
            return

        def delete(api: Any) -> None:
            live = _look(api, recorded)
            if live is None or live.labels.get(INSTANCE) != recorded.stack:
                return
            live.delete()
            deadline = time.monotonic() + _GONE_S
            while _look(api, recorded) is not None:
                if time.monotonic() > deadline:
                    raise ResourceError(
                        f"the namespace {recorded.namespace!r} is still being deleted after {_GONE_S} s: "
                        f"`kubectl get namespace {recorded.namespace} -o yaml` says what it waits for."
                    )
                time.sleep(_PAUSE_S)

        _ask(recorded, delete)


class ClusterNamespace(Resource, module="marketlake", name="ClusterNamespace"):
    """A namespace."""

    namespace: pulumi.Output[str]

    def __init__(
        self, name: str, args: ClusterNamespaceArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the namespace `args["namespace"]` under the resource name `name`."""
        super().__init__(
            ClusterNamespaceProvider(), name, {**args, "version": ClusterNamespaceProvider.VERSION}, opts
        )


def _labels(recorded: ClusterNamespaceRecord) -> dict[str, str]:
    standard = {f"{_SECURITY}/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {**stack_labels(recorded.stack, "cluster-space"), **standard}


def _resource(api: Any, recorded: ClusterNamespaceRecord, labels: Mapping[str, str]) -> Any:
    from kr8s.objects import Namespace

    return Namespace({"metadata": {"name": recorded.namespace, "labels": dict(labels)}}, api=api)


def _look(api: Any, recorded: ClusterNamespaceRecord) -> Any:
    import kr8s

    live = _resource(api, recorded, {})
    try:
        live.refresh()
    except kr8s.NotFoundError:
        return None
    return live


def _ask(recorded: ClusterNamespaceRecord, action: Callable[[Any], Result]) -> Result:
    import httpx
    import kr8s

    cluster = f"the cluster of {recorded.kubeconfig}"
    try:
        with warnings.catch_warnings():
            # of a version that is younger than kr8s; namespaces are in all of them
            warnings.filterwarnings("ignore", message=".*Kubernetes version", category=UserWarning)
            return action(kr8s.api(kubeconfig=recorded.kubeconfig, context=recorded.context))
    except kr8s.ServerError as error:
        raise ResourceError(f"{cluster} refuses: {error}") from None
    except (OSError, ValueError, httpx.HTTPError, kr8s.APITimeoutError, kr8s.ConnectionClosedError) as error:
        raise UnreachableError(f"{cluster} does not answer: {error}.") from None
